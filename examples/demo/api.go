package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// setBroken breaks a payment, or mends it.
func (p *payment) setBroken(ctx context.Context, broken bool) error {
	path := "/mend"
	if broken {
		path = "/break"
	}
	return request(ctx, http.MethodPost, "http://"+p.addresses[2]+path, nil)
}

// customerStats is what the customer's mesh says about itself.
type customerStats struct {
	Retries     int               `json:"retries"`
	Updates     int               `json:"updates"`
	Breakers    map[string]string `json:"breakers"`
	Connected   bool              `json:"connected"`
	Certificate struct {
		ID      string    `json:"id"`
		Expires time.Time `json:"expires"`
		Number  int       `json:"number"`
	} `json:"certificate"`
}

func (w *world) stats(ctx context.Context) (s customerStats, err error) {
	err = request(ctx, http.MethodGet, "http://"+w.customer.ready["http"]+"/stats", &s)
	return s, err
}

// request makes an HTTP request and decodes the JSON of its answer into result,
// unless that is nil.
func request(ctx context.Context, method, url string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	if result == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(result)
}
