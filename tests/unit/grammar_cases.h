/* grammar_cases.h: schemas with texts that they must admit and must not, schemas that must be
 * refused with what the message names, and tools; for test_grammar.c. */
enum { MOST_TEXTS = 12 };

static const struct grammar_case {
    const char *schema;
    const char *yes[MOST_TEXTS + 1], *no[MOST_TEXTS + 1];
} cases[] = {
    {"{}",
     {"{}", "[]", "\"a\"", "1", "-1.5e3", "true", "null", "{\"a\": [1, {\"b\":null}]}"},
     {"", "{", "{\"a\"}", "01", "+1", ".5", "1.", "nul", "'a'", "{\"a\":1,}", "[1,]",
      "\"	\""}},
    {"true", {"{}", "[]", "\"a\"", "1"}, {"tru"}},
    {"{\"title\":\"x\",\"description\":\"y\",\"$comment\":\"z\",\"default\":1,\"x-order\":3,"
     "\"deprecated\":true}",
     {"1", "\"x\""},
     {"x"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a b\"", "\"\\n\\t\\\"\\\\\"", "\"é中😀\"", "\"\\u001f\"", "\"<\""},
     {"a", "\"", "\"a", "1", "\"\\x\"", "\"\\u12\"", "null"}},
    {"{\"type\":\"integer\"}",
     {"0", "7", "-7", "123456789012345678", "-999999999999999999"},
     {"1.0", "1.5", "1e3", "00", "-0", "-", "\"1\"", "1234567890123456789"}},
    {"{\"type\":\"number\"}",
     {"0", "-1", "1.5", "0.001", "1e10", "-2.5e-7", "1.00"},
     {"1.", ".5", "-", "1e", "1e123", "\"1\"", "01"}},
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "null", "0"}},
    {"{\"type\":\"null\"}", {"null"}, {"true", ""}},
    {"{\"type\":\"array\"}", {"[]", "[1,\"a\",[]]", "[null, true]"}, {"[", "[1", "[1,]", "{}"}},
    {"{\"type\":\"object\"}",
     {"{}", "{\"a\":1}", "{\"a\": {\"b\": []}, \"c\": \"d\"}"},
     {"{a:1}", "{\"a\" :1}", "[]", "{\"a\":1,}"}},
    {"{\"type\":[\"string\",\"null\"]}", {"\"x\"", "null"}, {"1"}},
    {"{\"type\":[\"integer\",\"boolean\"],\"minimum\":3}", {"3", "true"}, {"2", "null"}},
    {"{\"type\":\"string\",\"nullable\":true,\"maxLength\":2}", {"\"ab\"", "null"}, {"\"abc\""}},
    {"{\"enum\":[\"a\",\"ab\",\"abc\",\"b\",1,12,1.5,null,true,{\"k\":[1,\"<\"]},[]]}",
     {"\"a\"", "\"abc\"", "1", "12", "1.5", "null", "true", "{\"k\":[1,\"<\"]}", "[]"},
     {"\"c\"", "\"abcd\"", "2", "false", "{}", "\"\""}},
    {"{\"type\":\"string\",\"enum\":[\"a\",1,\"b\"]}", {"\"a\"", "\"b\""}, {"1"}},
    {"{\"type\":[\"integer\",\"null\"],\"enum\":[1,2,null,\"x\"]}", {"1", "null"}, {"\"x\""}},
    {"{\"enum\":[\"é\",\"ü\\\"\\\\\\n\",\"中文\"]}",
     {"\"é\"", "\"ü\\\"\\\\\\n\"", "\"中文\""},
     {"\"e\""}},
    {"{\"const\":\"x\"}", {"\"x\""}, {"\"y\"", "x"}},
    {"{\"const\":null}", {"null"}, {"0"}},
    {"{\"const\":{\"a\":[1,2.5,\"b\"]}}", {"{\"a\":[1,2.5,\"b\"]}"}, {"{\"a\":[1,2.5]}"}},
    {"{\"const\":1,\"enum\":[1,2]}", {"1"}, {"2"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":4}",
     {"\"ab\"", "\"abcd\"", "\"é中😀x\"", "\"\\n\\n\""},
     {"\"a\"", "\"abcde\"", "\"\""}},
    {"{\"type\":\"string\",\"maxLength\":0}", {"\"\""}, {"\"a\""}},
    {"{\"type\":\"string\",\"minLength\":3}", {"\"abc\"", "\"abcdefgh\""}, {"\"ab\""}},
    {"{\"minLength\":1}", {"\"a\""}, {"\"\"", "1"}},
    {"{\"type\":\"integer\",\"minimum\":0,\"maximum\":0}", {"0"}, {"1", "-1", "-0"}},
    {"{\"type\":\"integer\",\"minimum\":1,\"maximum\":10}",
     {"1", "9", "10"},
     {"0", "11", "100", "-1", "01"}},
    {"{\"type\":\"integer\",\"minimum\":-5,\"maximum\":5}",
     {"-5", "-1", "0", "5"},
     {"-6", "6", "-0", "-10"}},
    {"{\"type\":\"integer\",\"minimum\":-120,\"maximum\":-7}",
     {"-7", "-8", "-99", "-120", "-100"},
     {"-6", "-121", "-1", "0", "7", "-130"}},
    {"{\"type\":\"integer\",\"minimum\":99,\"maximum\":1001}",
     {"99", "100", "999", "1000", "1001"},
     {"98", "1002", "9", "10000"}},
    {"{\"type\":\"integer\",\"minimum\":123,\"maximum\":4567}",
     {"123", "124", "129", "130", "199", "4567", "4560", "999"},
     {"122", "4568", "4570", "5000", "12"}},
    {"{\"type\":\"integer\",\"minimum\":1000000}", {"1000000", "999999999999"}, {"999999", "0"}},
    {"{\"type\":\"integer\",\"maximum\":-1}", {"-1", "-1000"}, {"0", "1"}},
    {"{\"type\":\"integer\",\"minimum\":9007199254740993,\"maximum\":9007199254740995}",
     {"9007199254740993", "9007199254740995"},
     {"9007199254740992", "9007199254740996"}},
    {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", {"2", "3"}, {"1", "4"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":10}",
     {"1", "9"},
     {"0", "10"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":-3,\"maximum\":-1}", {"-2", "-1"}, {"-3", "0"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":1.5}", {"2"}, {"1"}},
    {"{\"type\":\"integer\",\"minimum\":3,\"exclusiveMinimum\":true,\"maximum\":6,"
     "\"exclusiveMaximum\":true}",
     {"4", "5"},
     {"3", "6"}},
    {"{\"type\":\"integer\",\"minimum\":2,\"exclusiveMinimum\":5}", {"6"}, {"5", "2"}},
    {"{\"type\":\"number\",\"multipleOf\":1,\"minimum\":0}", {"0", "5"}, {"0.5", "-1"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "1", "0.5", "0.000001", "0.999999"},
     {"1.1", "1.5", "-0.1", "2", "0.0", "1e0"}},
    {"{\"type\":\"number\",\"minimum\":0.1,\"maximum\":0.9}",
     {"0.1", "0.5", "0.9", "0.89", "0.100001"},
     {"0", "0.09", "0.91", "1", "0.099999", "0.900001"}},
    {"{\"type\":\"number\",\"minimum\":-0.5,\"maximum\":0.25}",
     {"0", "-0.5", "-0.4", "0.25", "0.2", "-0.000001"},
     {"-0.51", "0.26", "0.3", "1", "-1"}},
    {"{\"type\":\"number\",\"minimum\":1.25,\"maximum\":3.5}",
     {"1.25", "1.3", "2", "2.999", "3", "3.5", "3.25"},
     {"1.2", "1.249", "3.51", "3.6", "4", "1"}},
    {"{\"type\":\"number\",\"minimum\":-3.5,\"maximum\":-1.25}",
     {"-3.5", "-3", "-2.1", "-1.25", "-1.3"},
     {"-3.6", "-1.2", "-1", "1.5", "-4"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0}",
     {"0.000001", "1", "100.5"},
     {"0", "-1", "0.0"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}",
     {"0.5", "0.999999"},
     {"0", "1", "1.5"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0.5,\"exclusiveMaximum\":100}",
     {"0.6", "99.999999", "99", "0.500001"},
     {"0.5", "100"}},
    {"{\"type\":\"number\",\"minimum\":1e-07,\"maximum\":1e-05}",
     {"0.000001", "0.00001"},
     {"0", "0.0001"}},
    {"{\"type\":\"number\",\"maximum\":-2.5}", {"-2.5", "-3", "-1000"}, {"-2", "-2.4", "0"}},
    {"{\"minimum\":3}", {"3", "3.5", "4"}, {"2"}},
    {"{\"type\":\"string\",\"pattern\":\"^abc$\"}",
     {"\"abc\""},
     {"\"ab\"", "\"abcd\"", "\"xabc\""}},
    {"{\"type\":\"string\",\"pattern\":\"abc\"}",
     {"\"abc\"", "\"xxabcyy\"", "\"abc\\n\""},
     {"\"ab\"", "\"acb\""}},
    {"{\"type\":\"string\",\"pattern\":\"^abc\"}", {"\"abcd\""}, {"\"xabc\""}},
    {"{\"type\":\"string\",\"pattern\":\"abc$\"}", {"\"xabc\""}, {"\"abcx\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-z]+$\"}",
     {"\"a\"", "\"zz\""},
     {"\"\"", "\"A\"", "\"a1\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[^a-z]*$\"}",
     {"\"\"", "\"A1\"", "\"é\"", "\"中\""},
     {"\"a\"", "\"Ab\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[0-9a-fA-F]{8}$\"}",
     {"\"0123abCD\""},
     {"\"0123abC\"", "\"0123abCDE\"", "\"0123abCG\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a{2,4}b{0,1}c{1,}$\"}",
     {"\"aac\"", "\"aaaabcc\""},
     {"\"ac\"", "\"aaaaac\"", "\"aabb\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(foo|ba[rz])?x*$\"}",
     {"\"\"", "\"foo\"", "\"barx\"", "\"bazxx\""},
     {"\"ba\"", "\"fox\"", "\"foofoo\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(?:a|b|)c$\"}",
     {"\"ac\"", "\"bc\"", "\"c\""},
     {"\"abc\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a|b$\"}",
     {"\"axx\"", "\"xxb\"", "\"a\"", "\"b\""},
     {"\"xa\"", "\"bx\""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\d{3}-\\\\w+\\\\s\\\\S$\"}",
     {"\"123-a_9 x\"", "\"000-Z é\""},
     {"\"12-a x\"", "\"123- x\"", "\"123-a  \""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\D\\\\W$\"}", {"\"a!\""}, {"\"1!\"", "\"aa\""}},
    {"{\"type\":\"string\",\"pattern\":\"^.$\"}",
     {"\"a\"", "\"é\"", "\"😀\"", "\"中\"", "\"\\t\""},
     {"\"\"", "\"ab\"", "\"\\n\""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\u00e9\\\\x41\\\\u{1F600}$\"}",
     {"\"éA😀\""},
     {"\"eA😀\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\"\\\\\\\\\\\\n\\\\t/]+$\"}",
     {"\"\\\"\\\\\"", "\"\\n\\t\"", "\"/\""},
     {"\"a\"", "\"\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\\]\\\\-\\\\^a]+$\"}", {"\"]-^a\""}, {"\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a\\\\-z]$\"}", {"\"-\"", "\"a\"", "\"z\""}, {"\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[-a]$\"}", {"\"-\""}, {"\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\\w.-]+@[\\\\w-]+\\\\.[a-z]{2,}$\"}",
     {"\"a.b-c@d.de\""},
     {"\"@d.de\"", "\"a@d\"", "\"a@d.d\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(a(b(c)?)?)*$\"}",
     {"\"\"", "\"a\"", "\"ababc\""},
     {"\"b\"", "\"ac\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(a*)*$\"}", {"\"\"", "\"aaa\""}, {"\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){3}$\"}",
     {"\"aaaa\"", "\"bbabab\""},
     {"\"bbbb\"", "\"abb\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\\u4e00-\\\\u9fff]{1,2}$\"}",
     {"\"中文\""},
     {"\"a\"", "\"中文中\""}},
    {"{\"type\":\"string\",\"pattern\":\"^{a}$\"}", {"\"{a}\""}, {"\"a\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a+?b*?$\"}", {"\"aab\""}, {"\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^$\"}", {"\"\""}, {"\"a\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\\s\\\\S]{2}$\"}", {"\"a\\n\""}, {"\"a\""}},
    {"{\"type\":\"string\",\"pattern\":\"^<[a-z]>$\"}", {"\"<b>\""}, {"\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-z0-9-]+$\",\"minLength\":1,\"maxLength\":5}",
     {"\"a\"", "\"abc-1\""},
     {"\"\"", "\"abcdef\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-z]+[0-9]+$\",\"maxLength\":4}",
     {"\"a1\"", "\"ab12\""},
     {"\"a\"", "\"abcdefg1\""}},
    {"{\"type\":\"string\",\"pattern\":\"[0-9]\",\"minLength\":8}",
     {"\"12345678\""},
     {"\"1234567\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a{2}b$\",\"minLength\":1,\"maxLength\":10}",
     {"\"aab\""},
     {"\"ab\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-28\""},
     {"\"2024-13-01\"", "\"24-01-01\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"2024-12-01T23:59:59Z\""},
     {"\"2024-12-01\""}},
    {"{\"type\":\"string\",\"format\":\"uuid\"}",
     {"\"01234567-89ab-cdef-0123-456789abcdef\""},
     {"\"x\""}},
    {"{\"type\":\"string\",\"format\":\"email\"}", {"\"a.b@c.de\""}, {"\"a@b\""}},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}",
     {"\"255.1.0.99\""},
     {"\"256.1.1.1\"", "\"1.1.1\""}},
    {"{\"type\":\"string\",\"format\":\"time\"}", {"\"00:00:00Z\""}, {"\"24:00:00Z\""}},
    {"{\"format\":\"date\"}", {"\"2024-02-28\""}, {"1", "null", "\"24-01-01\""}},
    {"{\"allOf\":[{\"format\":\"uuid\"},{\"description\":\"x\"}]}",
     {"\"01234567-89ab-cdef-0123-456789abcdef\""},
     {"\"x\"", "{}"}},
    {"{\"format\":\"int32\"}", {"1", "\"x\""}, {"x"}},
    {"{\"type\":\"string\",\"format\":\"uri\"}", {"\"x://x\"", "\"anything\""}, {"1"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
     {"[]", "[1,2]", "[1, 2]"},
     {"[\"a\"]", "[1,]", "[1 ,2]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":2,\"maxItems\":3}",
     {"[true,false]", "[true,true, false]"},
     {"[]", "[true]", "[true,true,true,true]"}},
    {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[1]"}},
    {"{\"type\":\"array\",\"items\":false}", {"[]"}, {"[1]"}},
    {"{\"items\":{\"const\":1},\"minItems\":1}", {"[1]", "[1,1]"}, {"[]", "1"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}",
     {"[1,\"a\"]"},
     {"[\"a\",1]", "[1]"}},
    {"{\"type\":\"array\",\"items\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}",
     {"[1,\"a\"]"},
     {"[1,2]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"null\"}}}}",
     {"[[[null]],[]]"},
     {"[[1]]"}},
    {"{\"type\":\"array\",\"uniqueItems\":false,\"items\":{\"const\":\"a\"}}",
     {"[\"a\",\"a\"]"},
     {NULL}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[\"a\",\"b\",\"c\"],\"additionalProperties\":"
     "false}",
     {"{\"a\":1,\"b\":\"x\",\"c\":true}", "{\"a\": 1, \"b\": \"x\", \"c\": true}"},
     {"{}", "{\"a\":1}", "{\"b\":\"x\",\"a\":1,\"c\":true}",
      "{\"a\":1,\"b\":\"x\",\"c\":true,\"d\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[\"b\"]}",
     {"{\"b\":\"x\"}", "{\"a\":1,\"b\":\"x\"}", "{\"b\":\"x\",\"c\":false}",
      "{\"a\":1,\"b\":\"x\",\"c\":true}"},
     {"{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,,\"b\":\"x\"}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[]}",
     {"{}", "{\"a\":1}", "{\"c\":true}", "{\"a\":1,\"c\":true}", "{\"b\":\"\"}"},
     {"{,\"a\":1}", "{\"d\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[\"c\"]}",
     {"{\"c\":true}", "{\"a\":1,\"c\":true}", "{\"b\":\"\",\"c\":true}"},
     {"{\"b\":\"\"}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[\"a\",\"z\"]}",
     {"{\"a\":1,\"z\":[2]}", "{\"a\":1,\"b\":\"\",\"z\":null}"},
     {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[\"z\"],\"additionalProperties\":{\"type\":"
     "\"integer\"}}",
     {"{\"z\":1}"},
     {"{\"z\":\"a\"}"}},
    {"{\"type\":\"object\",\"required\":[\"q\"]}", {"{\"q\":1}"}, {"{}"}},
    {"{\"properties\":{\"a\\\"b\\\\c\\n\":{\"const\":1},\"é\":{\"const\":2}}}",
     {"{\"a\\\"b\\\\c\\n\":1,\"é\":2}", "{}"},
     {NULL}},
    {"{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":{\"const\":1}}}",
     {"{\"b\":1}", "{}"},
     {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
     {"{}", "{\"x\":1,\"y\":2}"},
     {"{\"x\":\"a\"}"}},
    {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}"}, {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[a-z]{1,3}$\"},"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     {"{\"ab\":null}"},
     {"{\"abcd\":null}", "{\"A\":null}"}},
    {"{\"type\":\"object\",\"propertyNames\":{\"type\":\"string\"},\"additionalProperties\":{}}",
     {"{\"any\":1}"},
     {NULL}},
    {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"x\",\"y\",3]},\"additionalProperties\":{"
     "\"type\":\"number\"}}",
     {"{\"x\":1.5}", "{}"},
     {"{\"z\":1}", "{3:1}"}},
    {"{\"type\":\"object\",\"patternProperties\":{\"^x-\":{\"type\":\"integer\"}},"
     "\"additionalProperties\":false}",
     {"{\"x-a\":1}", "{}"},
     {"{\"a\":1}", "{\"x-a\":\"\"}"}},
    {"{\"type\":\"object\",\"minProperties\":1,\"maxProperties\":2,\"additionalProperties\":{"
     "\"const\":0}}",
     {"{\"a\":0}", "{\"a\":0,\"b\":0}"},
     {"{}", "{\"a\":0,\"b\":0,\"c\":0}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}"
     ",\"c\":{\"type\":\"boolean\"}},\"required\":[\"a\"],\"minProperties\":1,\"maxProperties\":3}",
     {"{\"a\":1}"},
     {"{}"}},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}",
     {"1", "\"a\""},
     {"\"ab\"", "null"}},
    {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"},{\"type\":\"null\"}]}",
     {"1", "\"a\"", "null"},
     {"1.5"}},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"},\"x\":{\"type\":"
     "\"integer\"}},\"required\":[\"k\"]},{\"type\":\"object\",\"properties\":{\"k\":{\"const\":"
     "\"b\"},\"y\":{\"type\":\"string\"}},\"required\":[\"k\"]}]}",
     {"{\"k\":\"a\",\"x\":1}", "{\"k\":\"b\",\"y\":\"\"}"},
     {"{\"k\":\"a\",\"y\":\"\"}", "{}"}},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":["
     "\"a\"],\"additionalProperties\":false},{\"type\":\"object\",\"properties\":{\"b\":{\"type\":"
     "\"integer\"}},\"required\":[\"b\"],\"additionalProperties\":false}]}",
     {"{\"a\":1}", "{\"b\":1}"},
     {"{}"}},
    {"{\"oneOf\":[{\"enum\":[\"a\",\"b\"]},{\"const\":\"c\"}]}", {"\"a\"", "\"c\""}, {"\"d\""}},
    {"{\"allOf\":[{\"type\":\"integer\"},{\"minimum\":3},{\"maximum\":5}]}",
     {"3", "5"},
     {"2", "6"}},
    {"{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":["
     "\"a\"]},{\"properties\":{\"b\":{\"type\":\"null\"}}}]}",
     {"{\"a\":1}", "{\"a\":1,\"b\":null}"},
     {"{\"b\":null}"}},
    {"{\"$defs\":{\"base\":{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"integer\"}},"
     "\"required\":[\"id\"]}},\"allOf\":[{\"$ref\":\"#/$defs/"
     "base\"},{\"properties\":{\"n\":{\"type\":\"string\"}},\"required\":[\"n\"]}]}",
     {"{\"id\":1,\"n\":\"\"}"},
     {"{\"n\":\"\"}"}},
    {"{\"$defs\":{\"a\":{\"allOf\":[{\"type\":\"string\"}]}},\"allOf\":[{\"$ref\":\"#/$defs/"
     "a\"},{\"minLength\":2}]}",
     {"\"ab\""},
     {"\"a\"", "1"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
     "\"integer\"}},\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
     {"{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}"},
     {"{}"}},
    {"{\"type\":\"string\",\"anyOf\":[{\"minLength\":3},{\"const\":\"a\"}]}",
     {"\"abc\"", "\"a\""},
     {"\"ab\"", "1"}},
    {"{\"$ref\":\"#/$defs/x\",\"$defs\":{\"x\":{\"type\":\"integer\"}}}", {"1"}, {"\"a\""}},
    {"{\"$ref\":\"#/definitions/x\",\"description\":\"d\",\"definitions\":{\"x\":{\"const\":1}}}",
     {"1"},
     {"2"}},
    {"{\"$ref\":\"#/$defs/x\",\"minimum\":3,\"$defs\":{\"x\":{\"type\":\"integer\"}}}",
     {"3"},
     {"2"}},
    {"{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"$ref\":\"#\"}},"
     "\"required\":[\"v\"],\"additionalProperties\":false}",
     {"{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}"},
     {"{\"next\":{\"v\":1}}", "{\"v\":1,\"next\":{}}"}},
    {"{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"c\":{\"type\":\"array\",\"items\":{"
     "\"$ref\":\"#/$defs/n\"}}},\"required\":[\"c\"]}},\"$ref\":\"#/$defs/n\"}",
     {"{\"c\":[]}", "{\"c\":[{\"c\":[]},{\"c\":[{\"c\":[]}]}]}"},
     {"{}", "{\"c\":[1]}"}},
    {"{\"$defs\":{\"l\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"prefixItems\":[{"
     "\"type\":\"integer\"},{\"$ref\":\"#/$defs/l\"}]}]}},\"$ref\":\"#/$defs/l\"}",
     {"null", "[1,null]", "[1, [2,null]]"},
     {"[1]", "[]"}},
    {"{\"$schema\":\"https://example.com/"
     "schema\",\"type\":\"object\",\"properties\":{\"todos\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"object\",\"properties\":{\"content\":{\"type\":\"string\",\"minLength\":1},"
     "\"status\":{\"type\":\"string\",\"enum\":[\"pending\",\"in_progress\",\"completed\"]},"
     "\"activeForm\":{\"type\":\"string\",\"minLength\":1}},\"required\":[\"content\",\"status\","
     "\"activeForm\"],\"additionalProperties\":false}}},\"required\":[\"todos\"],"
     "\"additionalProperties\":false}",
     {"{\"todos\":[]}",
      "{\"todos\": [{\"content\": \"x\", \"status\": \"pending\", \"activeForm\": \"y\"}]}"},
     {"{\"todos\":[{\"content\":\"\",\"status\":\"pending\",\"activeForm\":\"y\"}]}",
      "{\"todos\":[{\"content\":\"x\",\"status\":\"done\",\"activeForm\":\"y\"}]}"}},
    {"{\"type\":\"object\",\"properties\":{\"questions\":{\"minItems\":1,\"maxItems\":4,\"type\":"
     "\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"question\":{\"type\":\"string\"},"
     "\"header\":{\"type\":\"string\",\"maxLength\":12},\"options\":{\"type\":\"array\","
     "\"minItems\":2,\"maxItems\":4,\"items\":{\"type\":\"object\",\"properties\":{\"label\":{"
     "\"type\":\"string\"},\"preview\":{\"type\":\"string\"}},\"required\":[\"label\"],"
     "\"additionalProperties\":false}},\"multiSelect\":{\"default\":false,\"type\":\"boolean\"}},"
     "\"required\":[\"question\",\"header\",\"options\",\"multiSelect\"],\"additionalProperties\":"
     "false}},\"answers\":{\"type\":\"object\",\"propertyNames\":{\"type\":\"string\"},"
     "\"additionalProperties\":{\"type\":\"string\"}},\"timeout\":{\"type\":\"integer\","
     "\"exclusiveMinimum\":0,\"maximum\":9007199254740991}},\"required\":[\"questions\"],"
     "\"additionalProperties\":false}",
     {"{\"questions\":[{\"question\":\"q\",\"header\":\"h\",\"options\":[{\"label\":\"a\"},{"
      "\"label\":\"b\"}],\"multiSelect\":true}],\"answers\":{\"q\":\"a\"},\"timeout\":5}"},
     {"{\"questions\":[]}",
      "{\"questions\":[{\"question\":\"q\",\"header\":\"1234567890123\",\"options\":[{\"label\":"
      "\"a\"},{\"label\":\"b\"}],\"multiSelect\":true}]}"}},
};
static const size_t N_CASES = sizeof cases / sizeof *cases;

static const struct refusal {
    const char *schema, *names;
} refusals[] = {
    {"{\"not\":{}}", "not"},
    {"{\"if\":{}}", "if"},
    {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems"},
    {"{\"multipleOf\":2}", "multipleOf"},
    {"{\"contains\":{}}", "contains"},
    {"{\"dependentRequired\":{}}", "dependentRequired"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"frobnicate\":1}}}",
     "schema.properties.a.frobnicate"},
    {"{\"type\":\"strin\"}", "strin"},
    {"{\"type\":5}", "schema.type"},
    {"{\"type\":[]}", "no answer"},
    {"{\"enum\":[]}", "no answer"},
    {"{\"enum\":\"a\"}", "enum"},
    {"{\"pattern\":5}", "pattern"},
    {"{\"minLength\":-1}", "minLength"},
    {"{\"minLength\":1.5}", "minLength"},
    {"{\"minLength\":\"1\"}", "minLength"},
    {"{\"minItems\":3000000}", "minItems"},
    {"{\"minimum\":\"1\"}", "minimum"},
    {"{\"properties\":[]}", "properties"},
    {"{\"required\":\"a\"}", "required"},
    {"{\"required\":[1]}", "required"},
    {"{\"items\":3}", "items"},
    {"{\"anyOf\":[]}", "anyOf"},
    {"{\"anyOf\":{}}", "anyOf"},
    {"{\"anyOf\":[1]}", "anyOf[0]"},
    {"{\"properties\":{\"a\":1}}", "schema.properties.a"},
    {"{\"$ref\":\"#/x\"}", "#/x"},
    {"{\"$ref\":\"http://example.com/b\"}", "$ref"},
    {"{\"$ref\":\"#\"}", "no answer"},
    {"{\"$ref\":5}", "$ref"},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "begins with itself"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
     "no answer"},
    {"{\"minimum\":5,\"maximum\":3}", "no answer"},
    {"{\"type\":\"string\",\"minLength\":5,\"maxLength\":3}", "no answer"},
    {"{\"type\":\"integer\",\"minimum\":1e+300}", "no answer"},
    {"false", "no answer"},
    {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}", "no answer"},
    {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"(a\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"a)\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"[a\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"[z-a]\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"*a\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"a{3,2}\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"x(^a)\"}", "anchor"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\p{L}\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"a{200000}\"}", "pattern"},
    {"{\"type\":\"string\",\"pattern\":\"(a?){50}\"}", "may be empty"},
    {"{\"type\":\"string\",\"pattern\":\"^([a-z]+-)+$\",\"maxLength\":5}", "length"},
    {"{\"type\":\"string\",\"pattern\":\"((((a{1000}){1000}){1000}){1000})\"}", "no answer"},
    {"{\"enum\":[\"a\"],\"minLength\":2}", "minLength"},
    {"{\"allOf\":[{\"minimum\":1},{\"minimum\":2}]}", "allOf"},
    {"{\"allOf\":[false]}", "allOf"},
    {"{\"allOf\":[{\"$ref\":\"#\"}]}", "allOf"},
    {"{\"allOf\":[{\"properties\":{\"a\":{}},\"additionalProperties\":false},{\"properties\":{"
     "\"b\":{}}}]}",
     "allOf"},
    {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "overlap"},
    {"{\"oneOf\":[{\"type\":\"object\"},{\"type\":\"object\",\"properties\":{\"a\":{}}}]}",
     "overlap"},
    {"{\"oneOf\":[{\"enum\":[1,2]},{\"enum\":[2,3]}]}", "overlap"},
    {"{\"type\":\"object\",\"properties\":{\"ab\":{}},\"patternProperties\":{\"a\":{\"type\":"
     "\"null\"}}}",
     "patternProperties"},
    {"{\"type\":\"object\",\"properties\":{\"ab\":{}},\"propertyNames\":{\"maxLength\":1}}",
     "propertyNames"},
    {"{\"type\":\"object\",\"minProperties\":2}", "minProperties"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"minProperties\":1}", "minProperties"},
    {"{\"type\":\"object\",\"propertyNames\":{\"type\":\"integer\"}}", "propertyNames"},
    {"{\"nullable\":\"yes\"}", "nullable"},
    {"{\"unevaluatedProperties\":false}", "unevaluatedProperties"},
    {"{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"array\",\"items\":{\"type\":\"integer\"}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}",
     "deep"},
    {NULL, NULL},
};

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"Bash\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"command\":{\"type\":\"string\",\"description\":\"x\"},\"timeout\":{\"type\":"
    "\"number\",\"maximum\":600000},\"run_in_background\":{\"type\":\"boolean\"}},\"required\":["
    "\"command\"],\"additionalProperties\":false,\"$schema\":\"https://example.com/"
    "schema\"}}},{\"type\":\"function\",\"function\":{\"name\":\"Edit\",\"parameters\":{\"type\":"
    "\"object\",\"properties\":{\"file_path\":{\"type\":\"string\"},\"old_string\":{\"type\":"
    "\"string\"},\"new_string\":{\"type\":\"string\"},\"replace_all\":{\"type\":\"boolean\","
    "\"default\":false}},\"required\":[\"file_path\",\"old_string\",\"new_string\"],"
    "\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"TodoWrite\","
    "\"parameters\":{\"$schema\":\"https://example.com/"
    "schema\",\"type\":\"object\",\"properties\":{\"todos\":{\"type\":\"array\",\"items\":{"
    "\"type\":\"object\",\"properties\":{\"content\":{\"type\":\"string\",\"minLength\":1},"
    "\"status\":{\"type\":\"string\",\"enum\":[\"pending\",\"in_progress\",\"completed\"]},"
    "\"activeForm\":{\"type\":\"string\",\"minLength\":1}},\"required\":[\"content\",\"status\","
    "\"activeForm\"],\"additionalProperties\":false}}},\"required\":[\"todos\"],"
    "\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"ask\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"questions\":{\"minItems\":1,"
    "\"maxItems\":4,\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"question\":"
    "{\"type\":\"string\"},\"header\":{\"type\":\"string\",\"maxLength\":12},\"options\":{\"type\":"
    "\"array\",\"minItems\":2,\"maxItems\":4,\"items\":{\"type\":\"object\",\"properties\":{"
    "\"label\":{\"type\":\"string\"},\"preview\":{\"type\":\"string\"}},\"required\":[\"label\"],"
    "\"additionalProperties\":false}},\"multiSelect\":{\"default\":false,\"type\":\"boolean\"}},"
    "\"required\":[\"question\",\"header\",\"options\",\"multiSelect\"],\"additionalProperties\":"
    "false}},\"answers\":{\"type\":\"object\",\"propertyNames\":{\"type\":\"string\"},"
    "\"additionalProperties\":{\"type\":\"string\"}},\"timeout\":{\"type\":\"integer\","
    "\"exclusiveMinimum\":0,\"maximum\":9007199254740991}},\"required\":[\"questions\"],"
    "\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"mcp__x.y-"
    "z\",\"parameters\":{\"type\":\"object\",\"properties\":{\"mode\":{\"enum\":[\"a\",\"b<c\"]},"
    "\"kind\":{\"const\":\"k\"},\"maybe\":{\"type\":[\"string\",\"null\"]},\"union\":{\"anyOf\":[{"
    "\"type\":\"string\",\"maxLength\":3},{\"const\":\"other\"}]},\"both\":{\"anyOf\":[{\"type\":"
    "\"string\"},{\"type\":\"integer\"}]},\"code\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-[0-"
    "9]+$\"},\"short\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":3},\"list\":{\"type\":"
    "\"array\",\"items\":{\"type\":\"string\"}},\"map\":{\"type\":\"object\","
    "\"additionalProperties\":{\"type\":\"string\",\"minLength\":1}},\"any\":{},\"ref\":{\"$ref\":"
    "\"#/$defs/"
    "t\"},\"when\":{\"type\":\"string\",\"format\":\"date\"},\"n\":{\"type\":\"integer\","
    "\"minimum\":-3,\"maximum\":3},\"only\":{\"type\":\"string\",\"nullable\":true}},\"required\":["
    "\"mode\",\"extra\"],\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"t\":{\"$ref\":\"#/"
    "$defs/"
    "t\"},\"s\":{\"type\":\"string\"}}}}}}},{\"type\":\"function\",\"function\":{\"name\":\"none\"}"
    "},{\"type\":\"function\",\"function\":{\"name\":\"empty\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{}}}},{\"type\":\"function\",\"function\":{\"name\":\"merged\",\"parameters\":{"
    "\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":["
    "\"a\"]},{\"properties\":{\"b\":{\"type\":\"integer\"}}}]}}}]";
