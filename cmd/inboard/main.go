// Inboard runs a mesh's control plane and helps its workloads to reach it.
//
//	inboard control-plane --config DIR    serve Istio YAML and certificates
//	inboard validate DIR                  check the YAML
//	inboard explain METHOD URL ...        say where a request would go
//	inboard diff OLD NEW ...              say what a change would change
//	inboard status                        say what clients have, and reject
//	inboard token ...                     let a workload get a certificate
//	inboard bootstrap ...                 tell a workload where to go
//	inboard version
//
// "inboard COMMAND --help" tells the rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
