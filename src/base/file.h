/* file.h: whole files and folders. */
#ifndef LC_BASE_FILE_H
#define LC_BASE_FILE_H

#include "base/buf.h"

/* Reads a whole file of at most `limit` bytes (0 = 1 GiB) into buf (appended, NUL-terminated). */
int lc_file_read(const char *path, size_t limit, lc_buf *buf, lc_err *err);
/* Writes a small file whole: to <path>.part, synced, renamed. */
int lc_file_write(const char *path, const char *data, size_t len, lc_err *err);
/* Before long work: makes the folders above path and finds what would stop lc_file_write. */
int lc_file_ready(const char *path, lc_err *err);

/* Makes a folder and those above it; what is there stays as it is. parents: only those above. */
int lc_make_folders(const char *path, unsigned mode, lc_err *err);
int lc_make_parents(const char *path, unsigned mode, lc_err *err);

/* Holds a folder for this process by FOLDER/lock: LC_EINVAL if another process has it. close(*lock)
 * lets go, and so does the end of the process. File systems without locks do without. */
int lc_folder_lock(const char *folder, int *lock, lc_err *err);

/* What was made or renamed in the folder survives a power cut. File systems that can't do without.
 */
int lc_folder_sync(const char *folder, lc_err *err);

#endif
