/* Records, in order, what a program writes below one folder; loaded with LD_PRELOAD.

   The environment names the folder (POWER_CUT_FOLDER, without links in it) and the file
   of the record (POWER_CUT_RECORD). Each event is one write to that file; `record.py`
   reads it. A lock is held over the operation and its event, so that the record has the
   order in which the threads of the program changed the folder.

   Files are named by their inode, so that renames and duplicated handles need no care.
   A sync is recorded but not made: the disk is a model. What SQLite keeps in its -shm
   file is left out, as it is made anew after a crash. An operation on the folder that
   the model does not know is recorded as `unknown`, which the model refuses. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint32_t kind, name_length, other_length, unused;
    uint64_t file, place, data_length;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int record = -1;

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* The record. */

static void note(char kind, uint64_t file, uint64_t place, const char *name,
                 const char *other, const void *data, size_t length) {
    int before = errno;
    struct head head = {(uint32_t)kind, (uint32_t)strlen(name),
                        (uint32_t)strlen(other), 0, file, place, length};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)name, strlen(name)},
                            {(void *)other, strlen(other)},
                            {(void *)data, length}};
    ssize_t size = (ssize_t)(sizeof head + strlen(name) + strlen(other) + length);
    if (syscall(SYS_writev, record, parts, 4) != size) {
        perror("the record of writes is incomplete");
        abort();
    }
    errno = before;
}

static void unknown(const char *call, const char *name) {
    note('X', 0, 0, call, name, NULL, 0);
}

static uint64_t inode_at(int at, const char *path) {
    struct stat found;
    return fstatat(at, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("POWER_CUT_FOLDER"), *file = getenv("POWER_CUT_RECORD");
    if (!folder || !file || strlen(folder) >= sizeof root) return;
    strcpy(root, folder);
    root_length = strlen(root);
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    record = (int)syscall(SYS_openat, AT_FDCWD, file, flags, 0644);
    if (record >= 0) note('M', inode_at(AT_FDCWD, root), 0, "", "", NULL, 0);
}

/* Something that the program says, between two of its operations. */
void power_cut_mark(const char *text) {
    if (record < 0) return;
    pthread_mutex_lock(&turn);
    note('N', 0, 0, "", "", text, strlen(text));
    pthread_mutex_unlock(&turn);
}

/* Which paths and handles are recorded. */

static int is_recorded(const char *whole, char *name) {
    if (strncmp(whole, root, root_length)) return 0;
    if (whole[root_length] != '/' && whole[root_length]) return 0;
    size_t length = strlen(whole);
    if (length >= 4 && !strcmp(whole + length - 4, "-shm")) return 0;
    strcpy(name, whole + root_length + (whole[root_length] == '/'));
    return 1;
}

static int target_of(int handle, char *name) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, name, PATH_MAX - 1);
    name[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* Whether a path is below the folder; `name` is then relative to it. */
static int has_path(int at, const char *path, char *name) {
    char whole[2 * PATH_MAX], parent[PATH_MAX], found[PATH_MAX];
    if (record < 0 || !path || strlen(path) >= PATH_MAX) return 0;
    *found = 0;
    if (path[0] != '/') {
        if (at != AT_FDCWD ? !target_of(at, found) : !getcwd(found, sizeof found))
            return 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", found, path);
    for (size_t end = strlen(whole); end > 1 && whole[end - 1] == '/'; end--)
        whole[end - 1] = 0;
    char *last = strrchr(whole, '/');
    *last++ = 0;
    if (!realpath(*whole ? whole : "/", parent)) return 0;
    char full[2 * PATH_MAX];
    snprintf(full, sizeof full, "%s/%s", parent, last);
    return is_recorded(full, name);
}

/* Whether a handle is of a file or folder below the folder, and its inode. */
static int has_handle(int handle, struct stat *found) {
    char whole[PATH_MAX], name[PATH_MAX];
    int before = errno, result = 0;
    if (record >= 0 && target_of(handle, whole)) {
        char *gone = strstr(whole, " (deleted)");
        if (gone && !gone[10]) *gone = 0;
        result = is_recorded(whole, name) && !fstat(handle, found) &&
                 (S_ISREG(found->st_mode) || S_ISDIR(found->st_mode));
    }
    errno = before;
    return result;
}

/* Opening. */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char name[PATH_MAX];
    REAL(int, "openat", int, const char *, int, ...);
    int makes = flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;
    if (!makes || !has_path(at, path, name)) return real(at, path, flags, mode);
    pthread_mutex_lock(&turn);
    struct stat before, after;
    int existed = !fstatat(at, path, &before, 0);
    int handle = real(at, path, flags, mode);
    if (handle >= 0 && !fstat(handle, &after)) {
        if ((flags & O_TMPFILE) == O_TMPFILE) unknown("open with O_TMPFILE", name);
        else if (!existed) note('C', after.st_ino, 0, name, "", NULL, 0);
        else if (flags & O_TRUNC) note('T', after.st_ino, 0, "", "", NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    return handle;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return open_at(AT_FDCWD, path, flags, mode); \
    }
#define OPEN_AT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return open_at(at, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)

int creat(const char *path, mode_t mode) {
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Writing. */

static void note_write(const struct stat *file, off_t place, const void *data,
                       ssize_t length) {
    if (length > 0)
        note('W', file->st_ino, (uint64_t)place, "", "", data, (size_t)length);
}

static void note_parts(const struct stat *file, off_t place, const struct iovec *parts,
                       int count, ssize_t length) {
    if (length <= 0) return;
    char *data = malloc((size_t)length);
    size_t done = 0;
    for (int i = 0; i < count && done < (size_t)length; i++) {
        size_t left = (size_t)length - done;
        size_t size = parts[i].iov_len < left ? parts[i].iov_len : left;
        memcpy(data + done, parts[i].iov_base, size);
        done += size;
    }
    note_write(file, place, data, length);
    free(data);
}

ssize_t write(int handle, const void *data, size_t length) {
    struct stat file;
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!has_handle(handle, &file)) return real(handle, data, length);
    pthread_mutex_lock(&turn);
    ssize_t done = real(handle, data, length);
    note_write(&file, lseek(handle, 0, SEEK_CUR) - done, data, done);
    pthread_mutex_unlock(&turn);
    return done;
}

ssize_t writev(int handle, const struct iovec *parts, int count) {
    struct stat file;
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (!has_handle(handle, &file)) return real(handle, parts, count);
    pthread_mutex_lock(&turn);
    ssize_t done = real(handle, parts, count);
    note_parts(&file, lseek(handle, 0, SEEK_CUR) - done, parts, count, done);
    pthread_mutex_unlock(&turn);
    return done;
}

#define PWRITE(name) \
    ssize_t name(int handle, const void *data, size_t length, off_t place) { \
        struct stat file; \
        REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t); \
        if (!has_handle(handle, &file)) return real(handle, data, length, place); \
        pthread_mutex_lock(&turn); \
        ssize_t done = real(handle, data, length, place); \
        note_write(&file, place, data, done); \
        pthread_mutex_unlock(&turn); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name) \
    ssize_t name(int handle, const struct iovec *parts, int count, off_t place) { \
        struct stat file; \
        REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t); \
        if (!has_handle(handle, &file)) return real(handle, parts, count, place); \
        pthread_mutex_lock(&turn); \
        ssize_t done = real(handle, parts, count, place); \
        note_parts(&file, place, parts, count, done); \
        pthread_mutex_unlock(&turn); \
        return done; \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define PWRITEV2(name) \
    ssize_t name(int handle, const struct iovec *parts, int count, off_t place, \
                 int flags) { \
        struct stat file; \
        REAL(ssize_t, "pwritev64v2", int, const struct iovec *, int, off_t, int); \
        int writes = has_handle(handle, &file); \
        if (!writes) return real(handle, parts, count, place, flags); \
        pthread_mutex_lock(&turn); \
        ssize_t done = real(handle, parts, count, place, flags); \
        if (place == -1 || flags) unknown("pwritev2 with flags", ""); \
        else note_parts(&file, place, parts, count, done); \
        pthread_mutex_unlock(&turn); \
        return done; \
    }
PWRITEV2(pwritev2)
PWRITEV2(pwritev64v2)

/* Sizes. */

#define FTRUNCATE(name) \
    int name(int handle, off_t size) { \
        struct stat file; \
        REAL(int, "ftruncate64", int, off_t); \
        if (!has_handle(handle, &file)) return real(handle, size); \
        pthread_mutex_lock(&turn); \
        int failed = real(handle, size); \
        if (!failed) note('T', file.st_ino, (uint64_t)size, "", "", NULL, 0); \
        pthread_mutex_unlock(&turn); \
        return failed; \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define TRUNCATE(name) \
    int name(const char *path, off_t size) { \
        char found[PATH_MAX]; \
        REAL(int, "truncate64", const char *, off_t); \
        if (!has_path(AT_FDCWD, path, found)) return real(path, size); \
        pthread_mutex_lock(&turn); \
        int failed = real(path, size); \
        uint64_t file = inode_at(AT_FDCWD, path); \
        if (!failed) note('T', file, (uint64_t)size, "", "", NULL, 0); \
        pthread_mutex_unlock(&turn); \
        return failed; \
    }
TRUNCATE(truncate)
TRUNCATE(truncate64)

static void note_room(int handle, const struct stat *file, int mode, off_t end) {
    struct stat before = *file;
    if (mode & ~FALLOC_FL_KEEP_SIZE) unknown("fallocate of another mode", "");
    else if (!mode && !fstat(handle, &before) && end > file->st_size)
        note('T', before.st_ino, (uint64_t)end, "", "", NULL, 0);
}

#define FALLOCATE(name) \
    int name(int handle, int mode, off_t place, off_t length) { \
        struct stat file; \
        REAL(int, "fallocate64", int, int, off_t, off_t); \
        if (!has_handle(handle, &file)) return real(handle, mode, place, length); \
        pthread_mutex_lock(&turn); \
        fstat(handle, &file); \
        int failed = real(handle, mode, place, length); \
        if (!failed) note_room(handle, &file, mode, place + length); \
        pthread_mutex_unlock(&turn); \
        return failed; \
    }
FALLOCATE(fallocate)
FALLOCATE(fallocate64)

#define POSIX_FALLOCATE(name) \
    int name(int handle, off_t place, off_t length) { \
        struct stat file; \
        REAL(int, "posix_fallocate64", int, off_t, off_t); \
        if (!has_handle(handle, &file)) return real(handle, place, length); \
        pthread_mutex_lock(&turn); \
        fstat(handle, &file); \
        int failed = real(handle, place, length); \
        if (!failed) note_room(handle, &file, 0, place + length); \
        pthread_mutex_unlock(&turn); \
        return failed; \
    }
POSIX_FALLOCATE(posix_fallocate)
POSIX_FALLOCATE(posix_fallocate64)

/* Syncs: recorded, and not made. */

#define SYNC(name) \
    int name(int handle) { \
        struct stat file; \
        REAL(int, #name, int); \
        if (!has_handle(handle, &file)) return real(handle); \
        pthread_mutex_lock(&turn); \
        note('S', file.st_ino, 0, "", "", NULL, 0); \
        pthread_mutex_unlock(&turn); \
        return 0; \
    }
SYNC(fsync)
SYNC(fdatasync)

static void note_sync_of_all(void) {
    pthread_mutex_lock(&turn);
    note('A', 0, 0, "", "", NULL, 0);
    pthread_mutex_unlock(&turn);
}

void sync(void) {
    REAL(void, "sync", void);
    if (record < 0) real();
    else note_sync_of_all();
}

int syncfs(int handle) {
    struct stat file;
    REAL(int, "syncfs", int);
    if (!has_handle(handle, &file)) return real(handle);
    note_sync_of_all();
    return 0;
}

/* Names. */

static int rename_at(int from, const char *old, int to, const char *new,
                     unsigned flags) {
    char name[PATH_MAX], other[PATH_MAX];
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    int is_from = has_path(from, old, name), is_to = has_path(to, new, other);
    if (!is_from && !is_to) return real(from, old, to, new, flags);
    pthread_mutex_lock(&turn);
    int failed = real(from, old, to, new, flags);
    if (!failed) {
        if (!is_from || !is_to || flags & ~1u) /* 1: RENAME_NOREPLACE */
            unknown("rename from or to elsewhere", is_from ? name : other);
        else note('R', 0, 0, name, other, NULL, 0);
    }
    pthread_mutex_unlock(&turn);
    return failed;
}

int rename(const char *old, const char *new) {
    return rename_at(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int renameat(int from, const char *old, int to, const char *new) {
    return rename_at(from, old, to, new, 0);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return rename_at(from, old, to, new, flags);
}

int unlinkat(int at, const char *path, int flags) {
    char name[PATH_MAX];
    REAL(int, "unlinkat", int, const char *, int);
    if (!has_path(at, path, name)) return real(at, path, flags);
    pthread_mutex_lock(&turn);
    int failed = real(at, path, flags);
    if (!failed) note('U', 0, 0, name, "", NULL, 0);
    pthread_mutex_unlock(&turn);
    return failed;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int remove(const char *path) {
    struct stat found;
    int is_folder = !lstat(path, &found) && S_ISDIR(found.st_mode);
    return unlinkat(AT_FDCWD, path, is_folder ? AT_REMOVEDIR : 0);
}

int mkdirat(int at, const char *path, mode_t mode) {
    char name[PATH_MAX];
    REAL(int, "mkdirat", int, const char *, mode_t);
    if (!has_path(at, path, name)) return real(at, path, mode);
    pthread_mutex_lock(&turn);
    int failed = real(at, path, mode);
    if (!failed) note('M', inode_at(at, path), 0, name, "", NULL, 0);
    pthread_mutex_unlock(&turn);
    return failed;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int symlinkat(const char *target, int at, const char *path) {
    char name[PATH_MAX];
    REAL(int, "symlinkat", const char *, int, const char *);
    if (!has_path(at, path, name)) return real(target, at, path);
    pthread_mutex_lock(&turn);
    int failed = real(target, at, path);
    if (!failed)
        note('L', inode_at(at, path), 0, name, "", target, strlen(target));
    pthread_mutex_unlock(&turn);
    return failed;
}

int symlink(const char *target, const char *path) {
    return symlinkat(target, AT_FDCWD, path);
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char name[PATH_MAX], other[PATH_MAX];
    REAL(int, "linkat", int, const char *, int, const char *, int);
    int is_from = has_path(from, old, name), is_to = has_path(to, new, other);
    if (!is_from && !is_to) return real(from, old, to, new, flags);
    pthread_mutex_lock(&turn);
    int failed = real(from, old, to, new, flags);
    if (!failed) {
        if (is_from && is_to) note('K', 0, 0, name, other, NULL, 0);
        else unknown("link from or to elsewhere", is_from ? name : other);
    }
    pthread_mutex_unlock(&turn);
    return failed;
}

int link(const char *old, const char *new) {
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

/* Operations that the model does not know. */

static void *map(void *at, size_t length, int access, int flags, int handle,
                 off_t place) {
    struct stat file;
    REAL(void *, "mmap64", void *, size_t, int, int, int, off_t);
    int writes = (access & PROT_WRITE) && (flags & MAP_SHARED) && handle >= 0;
    if (writes && has_handle(handle, &file)) {
        pthread_mutex_lock(&turn);
        unknown("mmap for writing", "");
        pthread_mutex_unlock(&turn);
    }
    return real(at, length, access, flags, handle, place);
}

void *mmap(void *at, size_t length, int access, int flags, int handle, off_t place) {
    return map(at, length, access, flags, handle, place);
}

void *mmap64(void *at, size_t length, int access, int flags, int handle, off_t place) {
    return map(at, length, access, flags, handle, place);
}

static void refuse(int handle, const char *call) {
    struct stat file;
    if (!has_handle(handle, &file)) return;
    pthread_mutex_lock(&turn);
    unknown(call, "");
    pthread_mutex_unlock(&turn);
}

ssize_t copy_file_range(int from, off_t *at, int to, off_t *place, size_t length,
                        unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off_t *, int, off_t *, size_t, unsigned);
    refuse(to, "copy_file_range");
    return real(from, at, to, place, length, flags);
}

#define SENDFILE(name) \
    ssize_t name(int to, int from, off_t *at, size_t length) { \
        REAL(ssize_t, "sendfile64", int, int, off_t *, size_t); \
        refuse(to, "sendfile"); \
        return real(to, from, at, length); \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)
