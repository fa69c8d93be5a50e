// replay.c: runs a target on the files of a corpus, without a fuzzer. With any compiler.

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "operations.h"

static char path[4096]; // of the file that is being replayed

// Tells which input it was. Called by whatever ends the program.
static void
tell_path(int number)
{
    ssize_t ignored = write(STDERR_FILENO, path, strlen(path));
    ignored = write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    signal(number, SIG_DFL);
    raise(number);
}

static void
replay_file(const char *folder, const char *name)
{
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    REQUIRE(file != NULL);
    // Of its very size, so that an address sanitizer sees who reads behind it.
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    size_t length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(length > 0 ? length : 1);
    REQUIRE(bytes != NULL && fread(bytes, 1, length, file) == length);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, length);
    free(bytes);
}

int
main(int count, char **arguments)
{
    unsigned replayed = 0;
    signal(SIGABRT, tell_path);
    signal(SIGSEGV, tell_path);
    for (int i = 1; i < count; i++) {
        DIR *folder = opendir(arguments[i]);
        REQUIRE(folder != NULL);
        for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
            if (entry->d_name[0] != '.') {
                replay_file(arguments[i], entry->d_name);
                replayed++;
            }
        }
        closedir(folder);
    }
    printf("%s: %u inputs, all as the model says\n", strrchr(arguments[0], '/') + 1,
           replayed);
    return replayed > 0 ? 0 : 1;
}
