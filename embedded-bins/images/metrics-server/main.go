// metrics-server as it is, but smaller once it has started.
package main

import (
	"os"
	"time"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"

	"k0s.io/k0s/internal/memory"
)

func main() {
	memory.Settle(10*time.Second, 30)
	os.Exit(cli.Run(app.NewMetricsServerCommand(genericapiserver.SetupSignalHandler())))
}
