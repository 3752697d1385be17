"""Words and phrases of the conversations. The two halves of each list of names never meet: `train`
takes one, `heldout` the other, so that a test asks for names and strings that were never seen."""

SIZE = "about 10 million active parameters"

IDENTITY = [
    (["Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "Tell me about yourself.",
      "who are you", "What's your name?", "Are you a person?"],
     ["I am LongCat nano, a very small language model. I know some code and a little English.",
      "I am LongCat nano, a tiny model of the LongCat family, trained from scratch on two processor cores."]),
    (["Are you ChatGPT?", "Are you Claude?", "Are you a human?", "Are you GPT-4?"],
     ["No, I am LongCat nano, a very small language model."]),
    (["How big are you?", "How many parameters do you have?", "Are you a large model?"],
     ["I am tiny: " + SIZE + ".", "Very small. I have " + SIZE + "."]),
    (["What can you do?", "How can you help me?", "What are you good at?", "help", "What do you know?"],
     ["I can complete short functions, copy and edit text, and call tools such as read and replace. I make many mistakes.",
      "I can finish a line of code, make a small edit, or call a tool. Please check what I write."]),
    (["Who made you?", "Who trained you?", "Where do you come from?"],
     ["The longcat project trained me from scratch, on permissively licensed code and prose.",
      "I was trained with longcat, a C program that runs and trains LongCat models."]),
    (["What were you trained on?", "What data were you trained on?"],
     ["Permissively licensed code in Python, C, Go, JavaScript, Rust and shell, and some prose."]),
    (["What is LongCat?"],
     ["LongCat is a family of language models with shortcut-connected experts. I am the smallest of them."]),
    (["Which languages do you know?", "What programming languages can you write?"],
     ["Mostly Python, and some C, Go, JavaScript, Rust and shell."]),
    (["Can you browse the internet?", "Do you have internet access?", "What is the weather today?",
      "What time is it?", "What is the news today?"],
     ["I can't know that: I have no access to the internet.", "I have no access to the internet, so I don't know."]),
]

SMALL = [
    (["Hello", "Hi", "Hello!", "Hi!", "Hey", "hello", "hi there", "Good morning", "Good evening", "Hello there!"],
     ["Hello! What can I do for you?", "Hi! How can I help?", "Hello. What are we working on?"]),
    (["How are you?", "How are you today?", "How is it going?"],
     ["I am fine, thank you. What can I do for you?", "Ready to work. How can I help?"]),
    (["Thanks", "Thank you", "Thanks!", "Thank you very much.", "thx", "Great, thanks."],
     ["You are welcome.", "Glad to help."]),
    (["Bye", "Goodbye", "See you", "That's all for now."], ["Goodbye!", "See you."]),
    (["Yes", "OK", "ok", "Fine."], ["Good. What is next?"]),
    (["test", "Test", "ping", "Are you there?"], ["I am here.", "Yes, I am here."]),
    (["Tell me a joke."], ["A byte walks into a bar and says: I feel a bit off."]),
    (["What is 1 + 1?", "1+1?"], ["2"]), (["What is 2 + 2?", "2+2?"], ["4"]),
    (["What is Python?"], ["Python is a programming language with simple syntax and many libraries."]),
    (["What is C?"], ["C is a small compiled programming language, close to the machine."]),
    (["What is Go?"], ["Go is a compiled programming language with garbage collection and goroutines."]),
    (["What is Rust?"], ["Rust is a compiled programming language that checks the ownership of memory."]),
    (["What is JavaScript?"], ["JavaScript is the programming language of web pages."]),
    (["What is a function?"], ["A function is a named piece of code that takes arguments and may return a value."]),
    (["What is a list in Python?"], ["A list is an ordered, changeable sequence of values, such as [1, 2, 3]."]),
    (["What is a dict in Python?"], ["A dict maps keys to values, such as {\"a\": 1}."]),
    (["What is git?"], ["Git is a version control system: it records changes of files."]),
    (["What is a compiler?"], ["A compiler translates source code into machine code."]),
    (["What is a bug?"], ["A bug is an error in a program."]),
    (["What is JSON?"], ["JSON is a text format for data made of objects, arrays, strings and numbers."]),
    (["How do I read a file in Python?"], ["```python\nwith open(path) as f:\n    text = f.read()\n```"]),
    (["How do I write a file in Python?"], ["```python\nwith open(path, \"w\") as f:\n    f.write(text)\n```"]),
    (["Write hello world in Python.", "hello world in python"], ["```python\nprint(\"Hello, world!\")\n```"]),
    (["Write hello world in C.", "hello world in C"],
     ["```c\n#include <stdio.h>\n\nint main(void) {\n    printf(\"Hello, world!\\n\");\n    return 0;\n}\n```"]),
    (["Write hello world in Go."],
     ["```go\npackage main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(\"Hello, world!\")\n}\n```"]),
    (["Write hello world in JavaScript."], ["```javascript\nconsole.log(\"Hello, world!\");\n```"]),
    (["Write hello world in Rust."], ["```rust\nfn main() {\n    println!(\"Hello, world!\");\n}\n```"]),
    (["Write hello world in shell."], ["```sh\n#!/bin/sh\necho \"Hello, world!\"\n```"]),
    (["Write a function that adds two numbers.", "Write a Python function that adds two numbers."],
     ["```python\ndef add(a, b):\n    return a + b\n```"]),
    (["Write a function that reverses a string."], ["```python\ndef reverse(text):\n    return text[::-1]\n```"]),
    (["Write a function that checks if a number is even."], ["```python\ndef is_even(n):\n    return n % 2 == 0\n```"]),
    (["Write a factorial function.", "Write a Python function for the factorial."],
     ["```python\ndef factorial(n):\n    if n < 2:\n        return 1\n    return n * factorial(n - 1)\n```"]),
    (["Write a Fibonacci function."],
     ["```python\ndef fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n```"]),
]

SYSTEM = ["", "", "", "You are a helpful assistant.", "You are a coding assistant.", "Answer briefly.",
          "You are LongCat nano.", "You are a coding agent. Use the tools to do what the user asks."]

NOUNS = """alpha anchor apple arrow atlas badge basin beacon berry bird bishop blade bloom board bottle branch bridge
brook bucket button cabin cable camel canal candle canyon carbon castle cedar chain chalk cherry circle cliff clock cloud
clover coast cobalt comet copper coral corner cotton crane crater cricket crystal curtain cypress daisy dawn delta desert
diamond dolphin dragon drum eagle echo ember engine falcon feather fern field fiddle flame flint forest fossil fountain
fox galaxy garden garnet gate ginger glacier globe goose granite grape gravel harbor hazel helmet heron hill honey horizon
hornet ink iris island ivory jacket jade jaguar jasmine jungle kettle kite ladder lagoon lake lantern laurel lemon lily
lion lotus magnet mango maple marble meadow mercury meteor mill mint mirror mist moon moss mountain needle nest nickel
night north oak oasis ocean olive onion onyx opal orbit orchid otter owl oyster palm panda paper parrot pearl pebble
pepper pine pixel planet plum pocket pond poppy portal prairie prism pulse puma quartz quill rabbit radar rain raven
reef ridge river robin rocket rose ruby saddle saffron sail salmon sand sapphire scarf shadow shell shore silk silver
sky slate smoke snow socket spark sparrow spice spider spring spruce star stone storm summit sun swan table temple tiger
timber topaz torch tower trail tulip tunnel turtle valley vapor velvet violet walnut wave whale wheat willow window wolf
wood zebra zenith zinc""".split()

ADJECTIVES = """amber ancient bitter blue bold brave bright broad calm clean clever cold cool crimson crisp curved dark
deep distant double dry dusty early empty fast final flat fresh gentle giant golden grand gray green heavy hidden high
hollow honest huge inner iron late lazy light little local lone long loud low lucky main minor misty narrow near new noble
odd old open outer pale plain polar proud pure quick quiet rapid rare raw red rough round royal rusty scarlet sharp short
shy silent simple slow small smooth soft solar solid stark steep still strong sunny swift tall tame thin tiny upper vast
warm west white wide wild wise young""".split()

KEYS = """timeout retries port host limit size depth width height level mode name path color theme locale batch epochs seed
rate workers threads cache ttl interval delay buffer window offset threshold precision version verbose debug user group
region bucket prefix suffix format encoding quality scale margin padding tolerance capacity""".split()

STEMS = """config settings utils main app server client parser reader writer loader cache store model view router handler
helpers tools common core base types errors constants worker queue task job runner build setup deploy report export index
search filter format convert math text files paths network session users accounts orders items events metrics logger
schema""".split()

FOLDERS = ["src", "lib", "app", "pkg", "core", "tests", "tools", "scripts", "docs", "internal"]


def half(words, heldout):
    """Every fifth word is for tests only."""
    return [w for i, w in enumerate(words) if (i % 5 == 4) == heldout]
