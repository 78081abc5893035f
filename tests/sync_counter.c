/* Counts the syncs of files whose name ends in a suffix; loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int of_journal, of_wal;

static int ends_in(const char *name, const char *suffix) {
    size_t length = strlen(name), wanted = strlen(suffix);
    return length >= wanted && !strcmp(name + length - wanted, suffix);
}

static void note(int file) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return;
    name[length] = 0;
    if (ends_in(name, "journal.sqlite")) __sync_fetch_and_add(&of_journal, 1);
    if (ends_in(name, "journal.sqlite-wal")) __sync_fetch_and_add(&of_wal, 1);
}

int syncs_of_journal(void) { return of_journal; }
int syncs_of_wal(void) { return of_wal; }

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int result = real(file);
    if (!result) note(file);
    return result;
}

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(file);
    if (!result) note(file);
    return result;
}
