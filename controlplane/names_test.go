package controlplane

import (
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/ca"
)

func TestNamesOfTheConfigurationAreChecked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, root string
		servers    []string
		want       []string // nil: it is good
	}{
		{"the defaults", "", nil, nil},
		{"good names", "mesh-system", []string{"control.test", "Control.Test", "*.mesh.test", "localhost", "my_host", "10.0.0.1", "2001:db8::1"}, nil},
		{"a root namespace in upper case", "Istio-System", nil, []string{`root namespace "Istio-System": want a DNS label`}},
		{"a root namespace with a space", "istio-system ", nil, []string{`root namespace "istio-system ": want a DNS label`}},
		{"a root namespace with a dot", "istio.system", nil, []string{`root namespace "istio.system": want a DNS label`}},
		{"everything at once", "-", []string{"control.test:15012", "", "ok.test", "a b", "https://x", "*", "*.test", "x..y", "10.0.0", "fe80::1%eth0", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"},
			[]string{
				`root namespace "-": want a DNS label`, `server name "control.test:15012": want a DNS name or an IP address, without a port`,
				`server name "": `, `server name "a b": `, `server name "https://x": `, `server name "*": `, `server name "*.test": `, `server name "x..y": `,
				`server name "10.0.0": `, `server name "fe80::1%eth0": `, `server name "` + strings.Repeat("a", 64) + `": `, `server name "a.a.`,
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := New(Config{CA: mustCA(t, ca.Config{}), RootNamespace: tt.root, ServerNames: tt.servers})
			if err == nil {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if tt.want != nil {
					t.Error("it is accepted")
				}
				return
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %d mistakes, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, tt.want[i]) {
					t.Errorf("got %s, want %s", line, tt.want[i])
				}
			}
		})
	}
}
