package proc

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Get returns what a process answers over HTTP. It is an error, which has the answer, if the status is not 200.
func Get(ctx context.Context, from string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept-Encoding", "identity") // to compress would cost the process more than all the rest of it
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// Metrics returns the samples of the process whose --http is addr, by name with labels as they are printed; nil if it
// does not answer.
func Metrics(ctx context.Context, addr string) map[string]float64 {
	values, err := Scrape(ctx, addr)
	if err != nil {
		return nil
	}
	return values
}

// Scrape is Metrics, and says why there are none. Who asks for a few of them by name, often, costs the process less.
func Scrape(ctx context.Context, addr string, names ...string) (map[string]float64, error) {
	text, err := Get(ctx, "http://"+addr+"/metrics?"+url.Values{"name[]": names}.Encode())
	if err != nil {
		return nil, err
	}
	values := make(map[string]float64)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = v
		}
	}
	return values, nil
}

// FreeAddr returns an address of this machine that nobody listens on now.
//
// The port is below those that systems give to clients: one of those would be taken by the next connection.
func FreeAddr() (addr string, err error) {
	for range 100 {
		addr = fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(17_000))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}
