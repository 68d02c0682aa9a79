package component

import "context"

type reporterKey struct{}

// Report tells the engine what a component that is starting waits for; ctx is that of Start or Ready.
// It shows in the status, and in the log when the wait is long. Without an engine it does nothing.
func Report(ctx context.Context, waitingFor error) {
	if report, ok := ctx.Value(reporterKey{}).(func(error)); ok {
		report(waitingFor)
	}
}

func withReporter(ctx context.Context, report func(error)) context.Context {
	return context.WithValue(ctx, reporterKey{}, report)
}
