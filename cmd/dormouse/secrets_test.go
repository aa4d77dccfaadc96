package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/spf13/cobra"

	"dormouse/internal/natstest"
)

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                          "plain",
		"a@b":                            "a@b",
		"log acme.web@home":              "log acme.web@home",
		"at nats://u:p@h:4222: refused":  "at nats://xxxxx@h:4222: refused",
		"nats://token@h":                 "nats://xxxxx@h",
		`parse "nats://u:p%zz@h": wrong`: `parse "nats://xxxxx@h": wrong`,
		"nats://u:p@a,tls://v:q@b":       "nats://xxxxx@b",
		"u:p@h":                          "xxxxx@h",
		"url=u:p@h,v:q@i":                "url=xxxxx@h,xxxxx@i",
		"s3://b?endpoint=http://k:s@h/x": "s3://xxxxx@h/x",
		"nats://u:a/b@c@h":               "nats://xxxxx@h",
	} {
		if got := redact(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestPublicServers(t *testing.T) {
	for list, want := range map[string]string{
		"nats://h:4222":                "nats://h:4222",
		"h":                            "nats://h",
		"nats://u:p@a:1, tls://t@b":    "nats://a:1,tls://b",
		"u:p@a,b":                      "nats://a,nats://b",
		"nats://u:s%40cret@h":          "nats://h",
		"nats://u:s,cret@h":            hidden, // a comma ends a server's URL
		"nats://u:12,cret@h":           hidden,
		"nats://u:s/cret@h":            hidden,
		"nats://u:12/cret@h":           hidden,
		"nats://u:12?cret@h":           hidden,
		"nats://u:%zz@h":               hidden,
		"nats://u:s cret@h":            hidden,
		"":                             hidden,
		"nats://h:4222,nats://u:p@h:x": hidden,
	} {
		if got := publicServers(list); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
	given := "dormouse serve --nats-url u:p@h --nats-url=t@h --archive s3://k:s@b --data x"
	want := "dormouse serve --nats-url nats://h --nats-url=nats://h --archive s3://xxxxx@b --data x"
	if got := publicArgs(strings.Fields(given)); !slices.Equal(got, strings.Fields(want)) {
		t.Errorf("arguments %q, want %q", got, want)
	}
}

func TestLogHasNoSecret(t *testing.T) {
	var out strings.Builder
	log := newLogger(&out, "json", "info")
	log.With("server", "nats://u:hush@h").
		Error("u:hush@h failed", "error", fmt.Errorf("at nats://hush@h"), slog.Group("g", "url", "tls://u:hush@h"))
	if strings.Contains(out.String(), "hush") || strings.Count(out.String(), hidden) != 4 {
		t.Error(out.String())
	}
}

// everyCommand lists the command lines of all commands that take a NATS, with the arguments that they need.
func everyCommand(t *testing.T) (lines [][]string) {
	t.Helper()
	args := map[string][]string{
		"serve": serveHere(t), "publish": {"a.b"}, "read": {"a.b"}, "stat": {"a.b"},
		"delete": {"a.b", "--yes"}, "rebuild": {"--archive", "file://" + t.TempDir()},
		"bench": {"drain", "--entries", "1", "--runs", "1", "--dir", t.TempDir()},
	}
	for _, cmd := range newRootCommand().Commands() {
		if cmd.Flag("nats-url") != nil {
			lines = append(lines, append([]string{cmd.Name()}, args[cmd.Name()]...))
		}
	}
	if len(lines) < 9 {
		t.Fatalf("only the commands %v", lines)
	}
	return lines
}

// serveHere are flags with which serve touches nothing of others.
func serveHere(t *testing.T) []string {
	return []string{"--data", t.TempDir(), "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"}
}

// TestNoCommandPrintsASecret runs every command against NATS servers that are not there, that no URL names, and that
// refuse the login, with the secret in each place where one can be.
func TestNoCommandPrintsASecret(t *testing.T) {
	const secret = "s3cret"
	srv := natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT
		o.Username, o.Password = "u", "another"
	})
	if !srv.ReadyForConnections(natsPatience) {
		t.Fatal("the NATS server did not start")
	}
	refusing := strings.TrimPrefix(srv.ClientURL(), "nats://")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	lines := everyCommand(t)
	try := func(where string, line ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), natsPatience)
		defer cancel()
		expectNoSecret(t, secret, where, line, command(ctx, strings.NewReader("x\n"), line...))
		if ctx.Err() != nil {
			t.Errorf("%s: %v did not end", where, line)
		}
	}
	for _, url := range []string{
		"nats://u:s3cret@127.0.0.1:1", "nats://s3cret@127.0.0.1:1", "u:s3cret@127.0.0.1:1", "nats://u:%73%33cret@127.0.0.1:1",
		"nats://127.0.0.1:1,nats://u:s3cret@127.0.0.1:1", "nats://u:s3cret@" + refusing, "s3cret@" + refusing,
		"nats://u:s3cret@127.0.0.1:port", "nats://u:s3cret%zz@h", "nats://u:p,s3cret@127.0.0.1:1",
		"nats://u:12/s3cret@127.0.0.1:1",
		"nats://u:12,s3cret@127.0.0.1:1", "nats://u:s3cret:12", "nats://u:p s3cret@127.0.0.1:1",
	} {
		for _, line := range lines {
			try(url, append(line, "--nats-url", url)...)
		}
		t.Setenv("DORMOUSE_NATS_URL", url)
		try(url+" by the environment", "ls")
		os.Unsetenv("DORMOUSE_NATS_URL")
	}
	for name, settings := range map[string]string{
		"url":       `{"url":"nats://u:s3cret@127.0.0.1:1"}`,
		"badurl":    `{"url":"nats://u:s3cret@127.0.0.1:port"}`,
		"password":  fmt.Sprintf(`{"url":%q,"user":"u","password":"s3cret"}`, refusing),
		"token":     fmt.Sprintf(`{"url":%q,"token":"s3cret"}`, refusing),
		"jwt":       fmt.Sprintf(`{"url":%q,"user_jwt":"s3cret"}`, refusing),
		"nkey":      fmt.Sprintf(`{"url":%q,"nkey":"SUs3cret"}`, refusing),
		"creds":     fmt.Sprintf(`{"url":%q,"creds":"-----BEGIN\ns3cret"}`, refusing),
		"socks":     fmt.Sprintf(`{"url":%q,"socks_proxy":"socks5://u:s3cret@127.0.0.1:1"}`, refusing),
		"badsocks":  fmt.Sprintf(`{"url":%q,"socks_proxy":"socks5://u:s3cret@h:port"}`, refusing),
		"malformed": `{"url":"nats://u:s3cret@127.0.0.1:1","password":["s3cret"]}`,
	} {
		if name == "nkey" { // what is no seed is a file's name
			settings = strings.Replace(settings, "SUs3cret", "SUAs3cret"+strings.Repeat("A", 49), 1)
			settings = strings.ReplaceAll(settings, "s3cret", "S3CRET")
		}
		writeContext(t, name, settings)
		for _, line := range lines {
			if line[0] != "bench" { // takes no context
				try("context "+name, append(line, "--nats-context", name)...)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "dormouse.yaml")
	for _, text := range []string{"nats-url: nats://u:s3cret@127.0.0.1:1\n", "nats://u:s3cret@h", "u:s3cret@h",
		"u:s3cret\n", "- u:s3cret@h\n",
		"nats-url: [nats://u:s3cret@h:port]\n", "nats://u:s3cret@h: x\n", "nats-url: nats://u:s3cret@h: 4222\n",
		"max-delay: nats://u:s3cret@h\nnats-url: nats://h:port"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		try(text, "ls", "--config", file)
		try(text, append(serveHere(t), "serve", "--config", file)...)
	}
	for _, line := range []string{
		"nats://u:s3cret@h", "ls nats://u:s3cret@h x", "serve u:s3cret@h", "read nats://u:s3cret@h", "stat u:s3cret@h",
		"ls --nats://u:s3cret@h",
		"serve --max-delay nats://u:s3cret@h", "serve --roles u:s3cret@h", "serve --archive s3://k:s3cret@b",
		"serve --archive k:s3cret@b",
		"serve --nats-creds -----BEGIN\ns3cret --nats-url nats://127.0.0.1:1", "serve --http u:s3cret@h:x",
	} {
		words := strings.Split(line, " ")
		if words[0] == "serve" { // what is said twice counts the second time
			words = slices.Concat(words[:1], serveHere(t), words[1:])
		}
		try("arguments", words...)
	}
}

func expectNoSecret(t *testing.T, secret, where string, line []string, got result) {
	t.Helper()
	if got.code == exitOK {
		t.Errorf("%s: %v went well: %+v", where, line, got)
	}
	if said := strings.ToLower(got.out + got.errors); strings.Contains(said, secret) ||
		strings.Contains(said, secret[1:]) ||
		strings.Contains(said, "%73") {
		t.Errorf("%s: %v says the secret: %+v", where, line, got)
	}
}

// TestHelpHasNoSecret: what the environment sets is no default that help shows.
func TestHelpHasNoSecret(t *testing.T) {
	t.Setenv("DORMOUSE_NATS_URL", "nats://u:s3cret@h")
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			line := strings.Fields(c.CommandPath())[1:]
			if got := command(t.Context(), nil, append(line, "--help")...); strings.Contains(
				got.out+got.errors,
				"s3cret",
			) {
				t.Errorf("%v --help: %+v", line, got)
			}
			visit(c)
		}
	}
	visit(newRootCommand())
	got := command(t.Context(), nil, "__complete", "ls", "--nats-url", "")
	if strings.Contains(got.out+got.errors, "s3cret") {
		t.Errorf("completion: %+v", got)
	}
}
