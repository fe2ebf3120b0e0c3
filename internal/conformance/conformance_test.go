// Package conformance keeps docs/conformance.md and the tests in step.
package conformance

import (
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the tests column of docs/conformance.md")

const page = "../../docs/conformance.md"

var (
	// A test carries its rows at the start of its name, "TestX40_X41_What..." or
	// "TestX40_What...AndX41_Why".
	testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	rowName  = regexp.MustCompile(`(?:^|_|And)([XSGV]|B[A-Z])(\d+)(?:_|$)`)
	rowLine  = regexp.MustCompile(`^\| ((?:[XSGV]|B[A-Z])\d+) \| (.*) \| ([^|]*) \|$`)
)

// rowsOf returns the rows that a test's name carries.
func rowsOf(name string) []string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "Test"), "Fuzz")
	var rows []string
	for {
		m := rowName.FindStringSubmatchIndex(name)
		if m == nil {
			return rows
		}
		number, err := strconv.Atoi(name[m[4]:m[5]])
		if err != nil {
			return rows
		}
		rows = append(rows, name[m[2]:m[3]]+strconv.Itoa(number))
		name = name[m[5]:]
	}
}

// testsByRow reads the names of all tests of the repository.
func testsByRow(t *testing.T) map[string][]string {
	t.Helper()
	tests := make(map[string][]string)
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2:
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range testName.FindAllSubmatch(source, -1) {
			name := string(m[1])
			for _, row := range rowsOf(name) {
				if !slices.Contains(tests[row], name) {
					tests[row] = append(tests[row], name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for row := range tests {
		slices.Sort(tests[row])
	}
	return tests
}

func cell(tests []string) string {
	if len(tests) == 0 {
		return "open"
	}
	return "`" + strings.Join(tests, "` `") + "`"
}

func TestPageListsTheTestsOfEveryRow(t *testing.T) {
	tests := testsByRow(t)
	if len(tests) < 50 {
		t.Fatalf("found tests for %d rows only: are the names still read right?", len(tests))
	}
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	for i, line := range lines {
		m := rowLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		row, rule, got := m[1], m[2], m[3]
		key := rowsOf(row + "_")[0] // S01 and S1 are one row
		// A row without a test may say why it is open.
		want := cell(tests[key])
		if want == "open" && strings.HasPrefix(got, "open") {
			want = got
		}
		delete(tests, key)
		if got == want {
			continue
		}
		if !*update {
			t.Errorf("row %s lists %s, the tests are %s: run go test ./internal/conformance -update", row, got, want)
		}
		lines[i] = "| " + row + " | " + rule + " | " + want + " |"
	}
	for _, row := range slices.Sorted(maps.Keys(tests)) {
		t.Errorf("tests %q name row %s, which is not on the page", tests[row], row)
	}
	if *update {
		if err := os.WriteFile(page, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRowsOfANameAreFound(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"TestX33_OmittedResourceIsKept":         {"X33"},
		"TestX01_NodeIsSent":                    {"X1"},
		"TestX40_X41_ARemovedCluster":           {"X40", "X41"},
		"TestX40_ItLeavesAndX41_ComesBack":      {"X40", "X41"},
		"TestX82_X83_X84_DeltaSendsWhatItHolds": {"X82", "X83", "X84"},
		"TestBR1_AttemptsAreCounted":            {"BR1"},
		"TestV24_AMinuteOfCertificates":         {"V24"},
		"TestVersionsAreOpaque":                 nil,
		"TestBase64IsDecoded":                   nil,
		"FuzzX57_Anything":                      {"X57"},
		"TestCustomerCallsPayment":              nil,
	} {
		if got := rowsOf(name); !slices.Equal(got, want) {
			t.Errorf("rowsOf(%q) = %q, want %q", name, got, want)
		}
	}
}
