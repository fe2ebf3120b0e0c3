package discovery

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// defaultTimeLayout is that of Envoy's START_TIME.
const defaultTimeLayout = "%Y-%m-%dT%H:%M:%E3SZ"

// timeVerbs are the verbs of a layout, as strftime(3) has them, in Go's. Those
// that Go does not have are in appendVerb.
var timeVerbs = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday",
	'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04",
	'z': "-0700", 'Z': "MST",
}

// CheckTimeLayout reports what is wrong with a layout of START_TIME. Its verbs
// are those of strftime(3), Y y m d e j H I M S p b h B a A F T D R z Z and "%%";
// Envoy's for fractions of a second, "%f" and "%1f" to "%9f"; "%E3S", seconds
// with so many digits of the fraction; and "%s", the seconds since 1970.
func CheckTimeLayout(layout string) error {
	_, err := appendTime(nil, time.Time{}, layout)
	return err
}

// FormatTime formats a time by a layout that [CheckTimeLayout] has passed.
func FormatTime(t time.Time, layout string) string {
	text, err := appendTime(nil, t, layout)
	if err != nil {
		return ""
	}
	return string(text)
}

func appendTime(to []byte, t time.Time, layout string) ([]byte, error) {
	for layout != "" {
		text, rest, found := strings.Cut(layout, "%")
		to = append(to, text...)
		if !found {
			break
		}
		var err error
		if to, layout, err = appendVerb(to, t, rest); err != nil {
			return nil, err
		}
	}
	return to, nil
}

// appendVerb appends what the verb at the beginning of layout stands for and
// returns the rest of layout.
func appendVerb(to []byte, t time.Time, layout string) (text []byte, rest string, err error) {
	if layout == "" {
		return nil, "", errors.New(`time layout: "%" at the end: write "%%" for a percent sign`)
	}
	verb, rest := layout[0], layout[1:]
	if goLayout, ok := timeVerbs[verb]; ok {
		return t.AppendFormat(to, goLayout), rest, nil
	}
	isDigit := func(i int) bool { return i < len(layout) && '1' <= layout[i] && layout[i] <= '9' }
	switch {
	case verb == '%':
		return append(to, '%'), rest, nil
	case verb == 's':
		return strconv.AppendInt(to, t.Unix(), 10), rest, nil
	case verb == 'f':
		return appendFraction(to, t, len(nanoseconds)), rest, nil
	case isDigit(0) && strings.HasPrefix(rest, "f"):
		return appendFraction(to, t, int(verb-'0')), rest[1:], nil
	case verb == 'E' && isDigit(1) && strings.HasPrefix(layout[2:], "S"):
		to = append(t.AppendFormat(to, "05"), '.')
		return appendFraction(to, t, int(layout[1]-'0')), layout[3:], nil
	}
	return nil, "", fmt.Errorf(`time layout: "%%%c" is not supported`, verb)
}

const nanoseconds = "000000000"

func appendFraction(to []byte, t time.Time, digits int) []byte {
	return append(to, t.Format("." + nanoseconds)[1:1+digits]...)
}
