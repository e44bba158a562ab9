// Command probemesh is the whole product in one binary: the processes of a mesh (up, server, prober) and the verbs of its users.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/probemesh/probemesh/internal/cli"
)

func main() { os.Exit(run()) }

// run turns SIGINT and SIGTERM into the end of a context. A second signal ends the process at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return cli.Run(ctx, cli.Environment{
		Args:    os.Args[1:],
		In:      os.Stdin,
		Out:     os.Stdout,
		Err:     os.Stderr,
		Program: program(os.Args[0]),
		Getenv:  os.Getenv,
	})
}

// program is what to type to run this program again.
func program(arg0 string) string {
	switch {
	case strings.Contains(arg0, "go-build"): // go run builds it there, and takes it away again
		return "go run ./cmd/probemesh"
	case strings.ContainsRune(arg0, filepath.Separator):
		return arg0
	}
	return ""
}
