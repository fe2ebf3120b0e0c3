package discovery_test

import (
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

func ExampleParseFormat() {
	format, err := discovery.ParseFormat("%REQ(x-user?x-account)% at 100%%", discovery.OfRequest)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, part := range format.Parts {
		fmt.Printf("%q %q %q\n", part.Name, part.Alternative, part.Text)
	}
	_, err = discovery.ParseFormat("%UNKNOWN", discovery.OfRequest)
	fmt.Println(err)
	// Output:
	// "x-user" "x-account" ""
	// "" "" " at 100%"
	// "%" begins no command: write "%%" for a percent sign
}

func ExampleFormatTime() {
	layout := "%d/%b/%Y %H:%M:%E3S"
	if err := discovery.CheckTimeLayout(layout); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(discovery.FormatTime(time.Date(2026, 3, 4, 15, 6, 7, 8_000_000, time.UTC), layout))
	// Output: 04/Mar/2026 15:06:07.008
}
