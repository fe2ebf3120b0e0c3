package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// process is how a process of the mesh is: what its handler of package admin says at
// /readyz and /config.
type process struct {
	Ready bool `json:"ready"`
	// NotReady is why it is not.
	NotReady string          `json:"notReady,omitempty"`
	Config   json.RawMessage `json:"config"`

	is processConfig // of Config
}

// processConfig is what is read of /config.
type processConfig struct {
	Source struct {
		Kind          string    `json:"kind"`
		Live          int       `json:"live"`
		LastKnownGood int       `json:"lastKnownGood"`
		File          string    `json:"file"`
		Saved         time.Time `json:"saved"`
		Written       time.Time `json:"written"`
		Refused       string    `json:"refused"`
		NotWritten    string    `json:"notWritten"`
	} `json:"source"`
	Streams []struct {
		Server   string    `json:"server"`
		State    string    `json:"state"`
		Since    time.Time `json:"since"`
		Failures int       `json:"failures"`
		Error    string    `json:"error"`
	} `json:"streams"`
	Identities []struct {
		Name     string    `json:"name"`
		ID       string    `json:"id"`
		NotAfter time.Time `json:"notAfter"`
		// TrustDomains is nil where they are not told apart.
		TrustDomains []string `json:"trustDomains"`
		Error        string   `json:"error"`
	} `json:"identities"`
	Resources []struct {
		Type  string `json:"type"`
		Name  string `json:"name"`
		State string `json:"state"`
		Error string `json:"error"`
	} `json:"resources"`
	Services []struct {
		Kind      string    `json:"kind"`
		Cluster   string    `json:"cluster"`
		Address   string    `json:"address"`
		State     string    `json:"state"`
		Since     time.Time `json:"since"`
		Failures  int       `json:"failures"`
		Error     string    `json:"error"`
		Providers []string  `json:"providers"`
	} `json:"services"`
	Guests []struct {
		Number    uint64 `json:"number"`
		Listeners []struct {
			Name  string `json:"name"`
			State string `json:"state"`
		} `json:"listeners"`
		Types []struct {
			Type     string `json:"type"`
			Rejected string `json:"rejected"`
		} `json:"types"`
	} `json:"guests"`
}

// askState asks a process how it is.
func askState(ctx context.Context, admin string) (*process, error) {
	u, err := url.Parse(admin)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--admin %q is no URL: write it like http://127.0.0.1:15021", admin)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	p := new(process)
	code, body, err := getPage(ctx, u.JoinPath("config"))
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK || json.Unmarshal(body, &p.is) != nil || p.is.Source.Kind == "" {
		return nil, fmt.Errorf("%s answered with status %d, and not as the handler of package admin does", u.Redacted(), code)
	}
	p.Config = body
	code, body, err = getPage(ctx, u.JoinPath("readyz"))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Ready bool   `json:"ready"`
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Ready != (code == http.StatusOK) || !answer.Ready && answer.Error == "" {
		return nil, fmt.Errorf("%s answered with status %d, and not as the handler of package admin does", u.JoinPath("readyz").Redacted(), code)
	}
	p.Ready, p.NotReady = answer.Ready, answer.Error
	return p, nil
}

func getPage(ctx context.Context, u *url.URL) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	resp, err := new(http.Client).Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: does the process run, and does it mount the handler of package admin there?", err)
	}
	defer resp.Body.Close()
	const most = 64 << 20
	body, err = io.ReadAll(io.LimitReader(resp.Body, most))
	return resp.StatusCode, body, err
}

// troubles are what somebody should look at, a line each.
func (p *process) troubles(now time.Time) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, printable(fmt.Sprintf(format, args...))) }
	if !p.Ready {
		add("not ready: %s", strings.ReplaceAll(p.NotReady, "\n", "; "))
	}
	if n := p.is.Source.LastKnownGood; n > 0 {
		add("%d resources are from disk, and not from the control plane", n)
	}
	if p.is.Source.Refused != "" {
		add("the configuration on disk is not used: %s", p.is.Source.Refused)
	}
	if p.is.Source.NotWritten != "" {
		add("the configuration is not kept on disk: %s", p.is.Source.NotWritten)
	}
	for _, s := range p.is.Streams {
		if s.State == "FAILING" {
			add("no stream to %s since %s, after %d attempts: %s", s.Server, stamp(s.Since), s.Failures, s.Error)
		}
	}
	for _, i := range p.is.Identities {
		switch {
		case i.Error != "":
			add("identity %q: %s", i.Name, i.Error)
		case !i.NotAfter.IsZero() && !now.Before(i.NotAfter):
			add("identity %q: the certificate has expired at %s", i.Name, stamp(i.NotAfter))
		case i.TrustDomains != nil && len(i.TrustDomains) == 0:
			add("identity %q: nobody is verified: its map of trust domains is empty", i.Name)
		}
	}
	for _, s := range p.is.Services {
		consequence := "requests that need it are refused"
		switch s.State {
		case "OK":
			continue
		case "FAILING_HARMLESSLY":
			consequence = "no request is refused for it"
		}
		of := s.Cluster
		if s.Address != "" {
			of += " (" + s.Address + ")"
		}
		add("no %s from %s since %s, after %d attempts; %s: %s", s.Kind, of, stamp(s.Since), s.Failures, consequence, s.Error)
	}
	for _, r := range p.is.Resources {
		if slices.Contains([]string{"NACKED", "RECEIVED_ERROR", "TIMEOUT"}, r.State) {
			add("%s %q is %s: %s", r.Type, r.Name, r.State, r.Error)
		}
	}
	for _, g := range p.is.Guests {
		for _, l := range g.Listeners {
			if l.State == "REFUSED" {
				add("native gRPC client %d is refused the listener %q", g.Number, l.Name)
			}
		}
		for _, t := range g.Types {
			if t.Rejected != "" {
				add("native gRPC client %d rejects a %s: %s", g.Number, t.Type, t.Rejected)
			}
		}
	}
	return lines
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// write prints it for people.
func (p *process) write(to io.Writer, now time.Time) error {
	var b strings.Builder
	state := "ready"
	if !p.Ready {
		state = "not ready"
	}
	fmt.Fprintf(&b, "%s; configuration: %s", state, printable(p.is.Source.Kind))
	fmt.Fprintf(&b, ", %d resources from the control plane, %d from disk", p.is.Source.Live, p.is.Source.LastKnownGood)
	if !p.is.Source.Saved.IsZero() {
		fmt.Fprintf(&b, " (of %s)", stamp(p.is.Source.Saved))
	}
	b.WriteByte('\n')
	if file := printable(p.is.Source.File); file != "" && p.is.Source.Written.IsZero() {
		fmt.Fprintf(&b, "to be kept in %s, not written yet\n", file)
	} else if file != "" {
		fmt.Fprintf(&b, "kept in %s, written %s\n", file, stamp(p.is.Source.Written))
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(p.is.Streams) > 0 {
		fmt.Fprintln(table, "CONTROL PLANE\tSTATE\tSINCE")
	}
	for _, s := range p.is.Streams {
		fmt.Fprintf(table, "%s\t%s\t%s\n", printable(s.Server), printable(s.State), stamp(s.Since))
	}
	if len(p.is.Identities) > 0 {
		fmt.Fprintln(table, "IDENTITY\tSPIFFE ID\tCERTIFICATE UNTIL\tVERIFIES")
	}
	for _, i := range p.is.Identities {
		until := "none"
		if !i.NotAfter.IsZero() {
			until = fmt.Sprintf("%s, in %v", stamp(i.NotAfter), i.NotAfter.Sub(now).Round(time.Second))
			if !now.Before(i.NotAfter) {
				until = stamp(i.NotAfter) + ", EXPIRED"
			}
		}
		verifies := "by one set of roots"
		switch {
		case i.Error != "":
			verifies = "nobody"
		case i.TrustDomains != nil:
			verifies = cmp.Or(strings.Join(i.TrustDomains, ", "), "nobody")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", printable(i.Name), printable(i.ID), until, printable(verifies))
	}
	if len(p.is.Services) > 0 {
		fmt.Fprintln(table, "SERVICE OF FILTERS\tCLUSTER\tSTATE")
	}
	for _, s := range p.is.Services {
		fmt.Fprintf(table, "%s\t%s\t%s\n", printable(s.Kind), printable(s.Cluster), printable(s.State))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(p.is.Streams) == 0 {
		b.WriteString("nothing was asked of the control plane yet\n")
	}
	troubles := p.troubles(now)
	if len(troubles) > 0 {
		b.WriteString("\nwhat is wrong:\n")
	}
	for _, line := range troubles {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
