package main

import (
	"bytes"
	"os"
	"testing"
)

func TestTheTypesAreThoseOfKubernetes(t *testing.T) {
	t.Parallel()
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../types.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("types.go is not what Kubernetes has: run go run . >../types.go")
	}
}
