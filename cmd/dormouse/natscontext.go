package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"
)

// connectContext connects as a context of the nats CLI says, and returns the prefix of its JetStream's API. A setting
// that would not be honoured is refused: without it another system than the one that is meant may be used.
func connectContext(name string, options ...nats.Option) (*nats.Conn, string, error) {
	settings, err := readContext(name)
	if err == nil {
		err = checkContext(settings)
	}
	var api string
	if err == nil {
		api, err = apiPrefix(settings)
	}
	if err != nil {
		return nil, "", usageErrorf("the NATS context %q: %w", name, err)
	}
	nc, _, err := natscontext.Connect(name, options...)
	if err != nil {
		return nil, "", fmt.Errorf("connecting with the NATS context %q: %w (see 'nats context ls')", name, err)
	}
	return nc, api, nil
}

// readContext reads a context's settings where the library does, which returns them only once it is connected. Of a
// context that is not there the library says so.
func readContext(name string) (s natscontext.Settings, err error) {
	file := name
	if !filepath.IsAbs(name) {
		folder := os.Getenv("XDG_CONFIG_HOME")
		if folder == "" {
			u, err := user.Current()
			if err != nil {
				return s, err
			}
			folder = filepath.Join(u.HomeDir, ".config")
		}
		file = filepath.Join(folder, "nats", "context", name+".json")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return s, nil
	}
	return s, json.Unmarshal(data, &s)
}

// checkContext refuses what the library ignores, and values that it would quote.
func checkContext(s natscontext.Settings) error {
	for _, setting := range []struct {
		name  string
		given bool
	}{
		{"nsc", s.NSCLookup != ""},
		{"user_jwt", s.UserJwt != ""},
		{"cert without key", s.Cert != "" && s.Key == ""},
		{"key without cert", s.Key != "" && s.Cert == ""},
		{"jetstream_domain beside jetstream_api_prefix", s.JSDomain != "" && s.JSAPIPrefix != ""},
	} {
		if setting.given {
			return fmt.Errorf(
				"its %s is not supported: use a context with user and password, creds, nkey, token or a client certificate",
				setting.name,
			)
		}
	}
	if _, err := parseServers(s.URL); s.URL != "" && err != nil {
		return fmt.Errorf("its url: %w", err)
	}
	if strings.ContainsAny(s.InboxPrefix, " \t\r\n*>") || strings.HasPrefix(s.InboxPrefix, ".") ||
		strings.HasSuffix(s.InboxPrefix, ".") {
		return fmt.Errorf("its inbox_prefix %q is no subject: give tokens with dots between them, as in _INBOX.web",
			s.InboxPrefix)
	}
	for name, file := range map[string]string{"creds": s.Creds, "nkey": s.NKey} {
		if err := checkFileName(file); err != nil {
			return fmt.Errorf("its %s: %w", name, err)
		}
	}
	return nil
}

// apiPrefix returns what all requests to the context's JetStream begin with, with the last dot.
func apiPrefix(s natscontext.Settings) (string, error) {
	prefix := jetstream.DefaultAPIPrefix
	switch {
	case s.JSDomain != "":
		prefix = "$JS." + s.JSDomain + ".API."
	case s.JSAPIPrefix != "":
		prefix = strings.TrimSuffix(s.JSAPIPrefix, ".") + "."
	}
	if strings.ContainsAny(prefix, " \t\r\n*>") || strings.HasPrefix(prefix, ".") || strings.Contains(prefix, "..") ||
		strings.Contains(s.JSDomain, ".") {
		return "", fmt.Errorf("its jetstream_domain or jetstream_api_prefix is no part of a subject")
	}
	return prefix, nil
}
