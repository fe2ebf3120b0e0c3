package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The exit codes of every command.
const (
	// exitOK is that all is well.
	exitOK = 0
	// exitFailed is that something is wrong: a problem in the configuration, a request
	// that makes a difference, a file that cannot be read.
	exitFailed = 1
	// exitUsage is a mistake on the command line.
	exitUsage = 2
)

// usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{text: fmt.Sprintf(format, args...)} }

// errFound is that something is wrong of which everything was said already.
var errFound = errors.New("something was found")

// invocation is one run of a command.
type invocation struct {
	name           string
	args           []string
	stdout, stderr io.Writer
}

// command is one of the things that inboard does.
type command struct {
	name, summary string
	run           func(context.Context, *invocation) error
}

func commands() []command {
	return []command{
		{"control-plane", "serve Istio YAML over xDS, and certificates", controlPlane},
		{"validate", "check Istio YAML", validate},
		{"explain", "say where a request would go, and why", explain},
		{"diff", "say which recorded requests a change would affect", diff},
		{"status", "show what a control plane serves and clients reject, or how a process is", showStatus},
		{"token", "issue a token for a workload", token},
		{"bootstrap", "print the bootstrap of a workload", printBootstrap},
		{"version", "print the version", version},
	}
}

// run runs the command that args name, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, name) {
		fmt.Fprint(stdout, overview())
		return exitOK
	}
	for _, c := range commands() {
		if c.name == name {
			call := &invocation{name: c.name, args: args[1:], stdout: stdout, stderr: stderr}
			return call.exit(c.run(ctx, call))
		}
	}
	if name != "" {
		fmt.Fprintf(stderr, "inboard: unknown command %q\n\n", name)
	}
	fmt.Fprint(stderr, overview())
	return exitUsage
}

func (c *invocation) exit(err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if errors.Is(err, errFound) {
		return exitFailed
	}
	fmt.Fprintf(c.stderr, "inboard %s: %v\n", c.name, err)
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(c.stderr, "run \"inboard %s --help\" for usage\n", c.name)
		return exitUsage
	}
	return exitFailed
}

func overview() string {
	var b strings.Builder
	b.WriteString("usage: inboard COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-14s %s\n", c.name, c.summary)
	}
	b.WriteString("\nrun \"inboard COMMAND --help\" for the flags of a command\n\n" +
		"It exits with 0 if all is well, with 1 if something is wrong, such as a problem in\n" +
		"the configuration, and with 2 after a mistake on the command line.\n")
	return b.String()
}

// flags is a flag set with the usage of this program.
type flags struct {
	*flag.FlagSet
	call *invocation
	// operands names what follows the flags: "DIR".
	operands string
	about    string
}

func (c *invocation) flags(operands, about string) *flags {
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard) // errors and usage are printed here
	return &flags{FlagSet: set, call: c, operands: operands, about: about}
}

// parse reads the arguments: flags, before and after the operands, of which there
// must be as many as are named.
func (f *flags) parse() error {
	err := f.parseAll()
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.help()
		return err
	case err != nil:
		return usagef("%v", err)
	}
	if want := len(strings.Fields(f.operands)); f.NArg() != want {
		if want == 0 {
			return usagef("unexpected argument %q", f.Arg(0))
		}
		return usagef("want %s, got %d arguments", f.operands, f.NArg())
	}
	return nil
}

// parseAll reads flags up to "--", wherever they are among the operands.
func (f *flags) parseAll() error {
	var operands []string
	args := f.call.args
	for {
		if err := f.Parse(args); err != nil {
			return err
		}
		rest := f.Args()
		read := len(args) - len(rest)
		if len(rest) == 0 || read > 0 && args[read-1] == "--" {
			operands = append(operands, rest...)
			break
		}
		operands, args = append(operands, rest[0]), rest[1:]
	}
	return f.Parse(append([]string{"--"}, operands...))
}

// required says which of the named flags have no value.
func (f *flags) required(names ...string) error {
	var missing []string
	for _, name := range names {
		if f.Lookup(name).Value.String() == "" {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return usagef("missing %s", strings.Join(missing, ", "))
	}
	return nil
}

// firstSet is the first of the named flags that was given, "" for none.
func (f *flags) firstSet(names ...string) string {
	given := make(map[string]bool)
	f.Visit(func(one *flag.Flag) { given[one.Name] = true })
	for _, name := range names {
		if given[name] {
			return name
		}
	}
	return ""
}

func (f *flags) help() {
	out := f.call.stdout
	fmt.Fprintf(out, "usage: %s\n\n%s\n", strings.TrimSpace("inboard "+f.call.name+" [flags] "+f.operands), f.about)
	first := true
	f.VisitAll(func(one *flag.Flag) {
		if first {
			fmt.Fprint(out, "\nflags:\n")
			first = false
		}
		kind, usage := flag.UnquoteUsage(one)
		if one.DefValue != "" && one.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", one.DefValue)
		}
		dashes := "--"
		if len(one.Name) == 1 {
			dashes = "-"
		}
		fmt.Fprintf(out, "  %s\n        %s\n", strings.TrimSpace(dashes+one.Name+" "+kind), usage)
	})
}

// list is a flag that can be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// outputJSON and outputText are the values of -o.
const (
	outputJSON = "json"
	outputText = "text"
)

// format is the flag -o.
type format string

func (f *format) String() string { return string(*f) }

func (f *format) Set(value string) error {
	if value != outputJSON && value != outputText {
		return fmt.Errorf("%q is no format: use %s or %s", value, outputText, outputJSON)
	}
	*f = format(value)
	return nil
}

// output adds the flag that says what to print.
func (f *flags) output() *format {
	chosen := format(outputText)
	f.Var(&chosen, "o", "print as `FORMAT`: text, or json for programs")
	return &chosen
}

// writeJSON prints a value for programs.
func writeJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// caDir adds the flag that control plane and tokens must agree on.
func (f *flags) caDir() *string {
	usage := "directory `DIR` of the CA; made on first use"
	base, err := os.UserConfigDir()
	if err != nil { // no home: the flag has to be given
		return f.String("ca-dir", "", usage)
	}
	return f.String("ca-dir", filepath.Join(base, "inboard", "ca"), usage)
}

// writeFile replaces a file at once: who waits for it never sees a part.
func writeFile(name string, data []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(name), ".inboard-*")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(mode), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
