/*
 * The first process of a pod: it holds the pod's namespaces open by doing nothing, and
 * reaps whatever is left to it where the pod shares one process namespace. It ends by
 * SIGTERM or SIGINT.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef VERSION
#error "compile with -DVERSION=\"...\""
#endif

int main(int argc, char **argv)
{
	sigset_t awaited;
	int signal;

	if (argc > 1 && argv[1][0] == '-' && argv[1][1] == 'v') {
		puts("pause " VERSION);
		return 0;
	}
	/* Blocked signals are kept for sigwait, even those that process 1 would never get. */
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGTERM);
	sigaddset(&awaited, SIGINT);
	sigaddset(&awaited, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &awaited, NULL) != 0) {
		perror("pause: blocking signals");
		return 1;
	}
	while (sigwait(&awaited, &signal) == 0) {
		if (signal != SIGCHLD)
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return 1;
}
