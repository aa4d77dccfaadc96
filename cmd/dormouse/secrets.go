package main

import (
	"errors"
	"log/slog"
	"net/url"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// What a command prints, logs or serves has no secret in it. Two things see to that: the URLs of NATS servers are only
// ever printed by publicServers, and all errors, log lines and pages pass redact, since libraries quote what they were
// given.

// hidden stands for a secret.
const hidden = "xxxxx"

// credentials match what stands before the @ of a URL, and a user and password before an @ without one.
var credentials = []struct {
	*regexp.Regexp
	by string
}{
	{regexp.MustCompile("([A-Za-z][A-Za-z0-9+.-]*://)[^\\s\"<>`]*@"), "${1}" + hidden + "@"},
	{regexp.MustCompile("[^\\s\"<>`,=/@]+:[^\\s\"<>`@/][^\\s\"<>`@]*@"), hidden + "@"},
}

// redact hides the credentials of URLs in a text.
func redact(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	for _, c := range credentials {
		text = c.ReplaceAllString(text, c.by)
	}
	return text
}

// redactAttr redacts what is logged.
func redactAttr(a slog.Attr) slog.Attr {
	var text string
	switch v := a.Value.Any().(type) {
	case string:
		text = v
	case error:
		text = v.Error()
	default:
		return a
	}
	if public := redact(text); public != text {
		return slog.String(a.Key, public)
	}
	return a
}

// publicError is the text of what a command ended with.
func publicError(cmd *cobra.Command, err error) string {
	text := err.Error()
	if f := cmd.Flag("nats-url"); f != nil && strings.Contains(f.Value.String(), "@") {
		text = strings.ReplaceAll(text, f.Value.String(), publicServers(f.Value.String()))
	}
	return redact(text)
}

// publicArgs are a command line's arguments without secrets.
func publicArgs(args []string) []string {
	const flag = "--nats-url"
	public := make([]string, len(args))
	for i, arg := range args {
		list, given := strings.CutPrefix(arg, flag+"=")
		switch {
		case given:
			public[i] = flag + "=" + publicServers(list)
		case i > 0 && args[i-1] == flag:
			public[i] = publicServers(arg)
		default:
			public[i] = redact(arg)
		}
	}
	return public
}

var errServers = errors.New(
	"want nats://host:4222, or several with commas between; user, password and token percent-encoded",
)

// parseServers reads a list of NATS servers as the library does. The error does not quote them.
func parseServers(list string) ([]*url.URL, error) {
	var servers []*url.URL
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Host == "" || strings.Contains(u.Hostname(), ":") && u.Host[0] != '[' ||
			strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
			return nil, errServers
		}
		servers = append(servers, u)
	}
	return servers, nil
}

// publicServers is a list of NATS servers as it may be printed: schemes and addresses.
func publicServers(list string) string {
	servers, err := parseServers(list)
	// Where only some have a scheme a comma may be a password's.
	if n := strings.Count(list, "://"); err != nil || n != 0 && n != len(servers) {
		return hidden
	}
	var public []string
	for _, u := range servers {
		public = append(public, u.Scheme+"://"+u.Host)
	}
	return strings.Join(public, ",")
}

// checkFileName refuses what is the content of a credentials file, or a seed, in the place of a file's name. The
// library would quote it.
func checkFileName(value string) error {
	if strings.ContainsAny(value, "\r\n") || seed.MatchString(value) {
		return errors.New("want the name of a file, not what is in it")
	}
	return nil
}

// seed is an nkey's private half.
var seed = regexp.MustCompile(`^S[A-Z2-7]{57}$`)
