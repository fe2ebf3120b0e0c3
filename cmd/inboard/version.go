package main

import (
	"context"
	"fmt"
	"runtime/debug"
)

func version(_ context.Context, call *invocation) error {
	f := call.flags("", "Prints the version of the program and of Go.")
	if err := f.parse(); err != nil {
		return err
	}
	number, goVersion := "unknown", "go unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		if info.Main.Version != "" {
			number = info.Main.Version
		}
	}
	_, err := fmt.Fprintf(call.stdout, "inboard %s %s\n", number, goVersion)
	return err
}
