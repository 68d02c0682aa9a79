/*
 * Starts a packet filter tool with the loader, the libraries and the modules that lie
 * beside this program, so that it works on any distribution and from any directory.
 * The name it is called by chooses the tool: nft, iptables, ip6tables-legacy-save, …
 */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[4096]; /* of this program */

static char *beside(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0) {
		fputs("out of memory\n", stderr);
		exit(1);
	}
	return path;
}

int main(int argc, char **argv)
{
	char *name = argc > 0 ? basename(argv[0]) : "";
	char *program = strcmp(name, "nft") == 0 ? "bin/nft"
		      : strstr(name, "-legacy") ? "bin/xtables-legacy-multi"
		      : strstr(name, "tables") ? "bin/xtables-nft-multi" : NULL;
	ssize_t length = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	char **args = calloc(argc + 10, sizeof(*args));
	int n = 0;

	if (program == NULL) {
		fprintf(stderr, "%s: call this as nft, iptables, ip6tables, …\n", name);
		return 1;
	}
	if (length < 0 || args == NULL) {
		fprintf(stderr, "%s: finding its own directory by /proc/self/exe: %s\n", name, strerror(errno));
		return 1;
	}
	dir[length] = '\0';
	dirname(dir);

	args[n++] = beside("ld.so");
	args[n++] = "--inhibit-cache";
	args[n++] = "--library-path";
	args[n++] = beside("lib");
	args[n++] = "--preload";
	args[n++] = beside("lib/protocols.so");
	args[n++] = "--argv0";
	args[n++] = name;
	args[n++] = beside(program);
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	setenv("XTABLES_LIBDIR", beside("xtables"), 1);
	unsetenv("LD_LIBRARY_PATH");
	unsetenv("LD_PRELOAD");
	execv(args[0], args);
	fprintf(stderr, "%s: running %s: %s\n", name, args[0], strerror(errno));
	return 1;
}
