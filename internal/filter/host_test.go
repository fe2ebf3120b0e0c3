package filter_test

import (
	"testing"

	"github.com/inboardmesh/inboard/internal/filter"
)

func TestV05_AHostHasOneReading(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"": true, "admin.shop": true, "ADMIN.shop:80": true, "admin.shop:": true, "admin.shop.": true, "a_b-c~1.x": true,
		"10.0.0.1:8080": true, "[::1]": true, "[::1]:8080": true, "[2001:db8::1]:": true,
		"[admin.shop]": false, "[admin.shop]:80": false, "[10.0.0.1]": false, "[::1": false, "[::1]x": false, "[::1%25lo]:80": false, "::1": false,
		"admin.shop..": false, ".admin.shop": false, "admin..shop": false, "admin.shop:80:90": false, "admin.shop:x": false, "admin.shop:800000": false,
		" admin.shop": false, "admin.shop\t": false, "admin.shop/x": false, "admin.shop#": false, "admin.shop?": false, "u@admin.shop": false,
		`admin.shop\x`: false, "admin%2eshop": false, "admin.shop,other": false, "ädmin.shop": false, ":80": false, "admin.shop\x00": false,
	} {
		if got := filter.PlainHost(host); got != want {
			t.Errorf("%q: %t, want %t", host, got, want)
		}
	}
}
