package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/inboardmesh/inboard/controlplane"
)

func showStatus(ctx context.Context, call *invocation) error {
	f := call.flags("", `Shows what a control plane serves and to whom: the configuration and what is
wrong with it, each client with what it is subscribed to, and what clients have
rejected, by resource, with their reasons; and which listeners they are refused,
because the configuration has another workload at the address. It exits with 1 if the
last change of the configuration is not served, a client rejects something, or is
refused a listener.

With --admin it asks a process of the mesh that mounts the handler of package admin:
whether it is ready, where its configuration is from, its streams to the control
plane, its identities and until when they hold, and the services that its filters
call. It exits with 1 if something is wrong with any of that, or with a resource.`)
	address := f.String("control-plane", "http://127.0.0.1:15014", "`URL` of the status listener of the control plane")
	admin := f.String("admin", "", "`URL` of the handler of a process, as http://127.0.0.1:15021")
	output := f.output()
	if err := f.parse(); err != nil {
		return err
	}
	if *admin != "" {
		if f.firstSet("control-plane") != "" {
			return usagef("give either --admin, to ask a process, or --control-plane")
		}
		return showProcess(ctx, call, *admin, *output)
	}
	found, err := askControlPlane(ctx, *address)
	if err != nil {
		return err
	}
	if *output == outputJSON {
		err = writeJSON(call.stdout, found)
	} else {
		err = writeStatus(call.stdout, found)
	}
	if err == nil && troubled(found) {
		return errFound
	}
	return err
}

// showProcess shows how a process of the mesh is.
func showProcess(ctx context.Context, call *invocation, admin string, output format) error {
	found, err := askState(ctx, admin)
	if err != nil {
		return err
	}
	now := time.Now()
	if output == outputJSON {
		err = writeJSON(call.stdout, found)
	} else {
		err = found.write(call.stdout, now)
	}
	if err == nil && len(found.troubles(now)) > 0 {
		return errFound
	}
	return err
}

// askControlPlane gets the status page.
func askControlPlane(ctx context.Context, address string) (*controlplane.Status, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--control-plane %q is no URL: write it like http://127.0.0.1:15014", address)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("status").String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := new(http.Client).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: does the control plane run, and does its --status listen there?", err)
	}
	defer resp.Body.Close()
	const most = 64 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, err
	}
	found := new(controlplane.Status)
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, found) != nil {
		return nil, fmt.Errorf("%s answered with status %d, and not as a control plane does", u.Redacted(), resp.StatusCode)
	}
	return found, nil
}

// troubled reports whether somebody should look.
func troubled(s *controlplane.Status) bool {
	if len(s.Config.Problems) > 0 {
		return true
	}
	for i := range s.Clients {
		for _, t := range s.Clients[i].Types {
			if t.NACK != nil && t.NACK.Active || len(t.Refused) > 0 {
				return true
			}
		}
	}
	return false
}

// writeStatus prints a status for people.
func writeStatus(to io.Writer, s *controlplane.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "configuration %s, %d files, loaded %s\n", s.Config.Version, s.Config.Files, s.Config.Loaded.Format(time.RFC3339))
	for _, problem := range s.Config.Problems {
		fmt.Fprintf(&b, "  not served, because of %s\n", printable(problem))
	}
	for _, warning := range s.Config.Warnings {
		fmt.Fprintf(&b, "  warning: %s\n", printable(warning))
	}
	fmt.Fprintf(&b, "now: %d streams of at most %d, %d connections of at most %d\n",
		len(s.Clients), s.Limits.Streams, s.Connections, s.Limits.Connections)
	fmt.Fprintf(&b, "since the start: %d streams, %d of them ended for silence, %d more refused; %d connections, %d of them closed without a call, %d more refused; %d resources sent, %d responses rejected\n",
		s.Totals.Streams, s.Totals.Stalled+s.Totals.Silent, s.Totals.Refused,
		s.Totals.Connections, s.Totals.ConnectionsIdle, s.Totals.ConnectionsRefused,
		s.Totals.Resources, s.Totals.NACKs)
	if len(s.Clients) == 0 {
		b.WriteString("no client is connected\n")
		_, err := io.WriteString(to, b.String())
		return err
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tPEER\tIDENTITY\tPROTOCOL\tTYPE\tNAMES\tSENT\tSTATE")
	for i := range s.Clients {
		c := &s.Clients[i]
		identity := c.Identity
		if identity == "" {
			identity = "-"
		}
		for _, typeURL := range slices.Sorted(maps.Keys(c.Types)) {
			t := c.Types[typeURL]
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", printable(c.Node), printable(c.Peer), printable(identity), c.Protocol,
				printable(typeURL[strings.LastIndexByte(typeURL, '.')+1:]), t.Subscribed, t.Resources, stateOf(&t))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	writeRejections(&b, s)
	writeRefusals(&b, s)
	_, err := io.WriteString(to, b.String())
	return err
}

// stateOf says how a client stands to the last response of a type.
func stateOf(t *controlplane.TypeStatus) string {
	switch {
	case t.NACK != nil && t.NACK.Active:
		return "REJECTED"
	case len(t.Refused) > 0:
		return "REFUSED"
	case t.Sent == "" && t.Current:
		return "up to date" // it has come with all that there is
	case t.Sent == "":
		return "nothing sent"
	case t.Acked == t.Sent:
		return "accepted"
	}
	return "not answered"
}

// writeRejections says what clients reject now.
func writeRejections(b *strings.Builder, s *controlplane.Status) {
	for i := range s.Clients {
		c := &s.Clients[i]
		for _, typeURL := range slices.Sorted(maps.Keys(c.Types)) {
			nack := c.Types[typeURL].NACK
			if nack == nil || !nack.Active {
				continue
			}
			fmt.Fprintf(b, "\n%s at %s rejects what it is sent (%d times on this stream, the last at %s):\n",
				printable(c.Node), printable(c.Peer), c.Types[typeURL].NACKs, nack.Time.Format(time.RFC3339))
			for _, r := range nack.Resources {
				fmt.Fprintf(b, "  %s %q: %s\n", printable(typeURL[strings.LastIndexByte(typeURL, '.')+1:]), r.Name, printable(r.Reason))
			}
			if len(nack.Resources) == 0 {
				fmt.Fprintf(b, "  %s: %s\n", printable(typeURL[strings.LastIndexByte(typeURL, '.')+1:]), printable(nack.Error))
			}
		}
	}
}

// writeRefusals says what clients ask for and are not given.
func writeRefusals(b *strings.Builder, s *controlplane.Status) {
	for i := range s.Clients {
		c := &s.Clients[i]
		for _, typeURL := range slices.Sorted(maps.Keys(c.Types)) {
			refused := c.Types[typeURL].Refused
			if len(refused) == 0 {
				continue
			}
			fmt.Fprintf(b, "\n%s at %s is refused:\n", printable(c.Node), printable(c.Peer))
			for _, r := range refused {
				fmt.Fprintf(b, "  %s %q: %s\n", printable(typeURL[strings.LastIndexByte(typeURL, '.')+1:]), r.Name, printable(r.Reason))
			}
		}
	}
}

// printable makes one line of what a client chose, without what a terminal obeys.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
