package nativegrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/xds"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
)

// unchangedVariable makes this program the one of
// [TestCodeThatKnowsNothingOfTheMeshIsAGuest]. It serves on a listener that it is
// started with: a port that is only told may be another's by then.
const unchangedVariable = "INBOARD_TEST_UNCHANGED"

func TestMain(m *testing.M) {
	if os.Getenv(unchangedVariable) != "" {
		if err := unchanged(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// unchanged joins the mesh, and then is a program that knows nothing of it: grpc-go
// reads its bootstrap from the environment. It calls itself.
func unchanged() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m, err := mesh.New(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	if _, err := nativegrpc.New(m); err != nil {
		return err
	}

	serverCreds, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	serving := make(chan struct{}, 8)
	server, err := xds.NewGRPCServer(grpc.Creds(serverCreds), xds.ServingModeCallback(func(_ net.Addr, a xds.ServingModeChangeArgs) {
		if a.Mode == connectivity.ServingModeServing {
			serving <- struct{}{}
		}
	}))
	if err != nil {
		return err
	}
	grpc_testing.RegisterTestServiceServer(server, &nativePayment{name: "unchanged"})
	const firstExtraFile = 3
	ln, err := net.FileListener(os.NewFile(firstExtraFile, "listener"))
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	defer func() {
		server.Stop()
		<-done
	}()
	select {
	case <-serving:
	case <-ctx.Done():
		return ctx.Err()
	}

	clientCreds, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(clientCreds))
	if err != nil {
		return err
	}
	defer conn.Close()
	response, err := call(ctx, conn)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s %s %d\n", response.GetHostname(), response.GetUsername(), len(m.Guests()))
	return nil
}

// TestCodeThatKnowsNothingOfTheMeshIsAGuest: the bootstrap sends it there.
func TestCodeThatKnowsNothingOfTheMeshIsAGuest(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a listener cannot be handed to another process")
	}
	w := worldtest.New(t, "")
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_ = ln.Close() // the file keeps it open
	w.Apply(service(address) + strict)
	var bootstrap map[string]any
	if err := json.Unmarshal([]byte(w.BootstrapJSON("shop", "payment", map[string]string{"app": "payment"})), &bootstrap); err != nil {
		t.Fatal(err)
	}
	server := bootstrap["xds_servers"].([]any)[0].(map[string]any)
	server["channel_creds"] = append([]any{map[string]any{"type": "inboard"}}, server["channel_creds"].([]any)...)
	text, err := json.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), os.Args[0])
	program.Env = append(os.Environ(), "GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS=true", unchangedVariable+"=yes", "GRPC_XDS_BOOTSTRAP_CONFIG="+string(text))
	program.ExtraFiles = []*os.File{file}
	var stderr bytes.Buffer
	program.Stderr = &stderr
	out, err := program.Output()
	if want := "unchanged " + paymentID + " 2\n"; err != nil || string(out) != want {
		t.Errorf("the program says %q, want %q: %v\n%s", out, want, err, stderr.String())
	}
	if clients := w.Status().Clients; len(clients) > 1 {
		t.Errorf("%d streams to the control plane", len(clients))
	}
}
