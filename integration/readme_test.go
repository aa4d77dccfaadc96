package integration

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var (
	flagInText    = regexp.MustCompile(`--[a-z][a-z-]+`)
	commandInText = regexp.MustCompile(`(?m)(?:cmd/dormouse|\bdormouse) ([a-z]+)\b`)
	codeInText    = regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
)

// TestReadme holds the README to the program: every flag and command that it shows as code exists.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	help := func(args ...string) string {
		out, err := exec.Command(binary, append(args, "--help")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	known := help()
	for _, command := range []string{"serve", "publish", "read", "ls", "stat", "status", "provision", "verify", "delete",
		"gc", "rebuild", "bench"} {
		known += help(command)
	}
	for _, code := range codeInText.FindAllString(string(readme), -1) {
		if !strings.Contains(code, "dormouse") && !strings.HasPrefix(code, "`--") {
			continue // somebody else's flags
		}
		for _, flag := range flagInText.FindAllString(code, -1) {
			if !regexp.MustCompile(flag + `\b`).MatchString(known) {
				t.Errorf("the README shows %s, which no command has, in %s", flag, code)
			}
		}
		for _, match := range commandInText.FindAllStringSubmatch(code, -1) {
			if !strings.Contains(known, "\n  "+match[1]+" ") {
				t.Errorf("the README shows the command %q, which does not exist, in %s", match[1], code)
			}
		}
	}
}
