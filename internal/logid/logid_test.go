package logid

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		id   string
		want string // part of the error, empty when valid
	}{
		"tenant and log":   {"acme.web", ""},
		"several tokens":   {"acme.web.nginx", ""},
		"not ASCII":        {"åcme.wéb", ""},
		"longest":          {"a." + strings.Repeat("b", MaxBytes-2), ""},
		"wildcard in part": {"acme.we*b", ""},
		"too long":         {"a." + strings.Repeat("b", MaxBytes-1), "257 bytes"},
		"empty":            {"", "empty"},
		"no log token":     {"acme", "no log token"},
		"empty token":      {"acme..web", "empty token"},
		"trailing dot":     {"acme.", "empty token"},
		"leading dot":      {".web", "empty token"},
		"star":             {"acme.*", "wildcard"},
		"greater":          {"acme.>", "wildcard"},
		"space":            {"acme.a b", "white space"},
		"nul":              {"acme.a\x00b", "control"},
		"bad UTF-8":        {"acme.\xff", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Validate(tc.id)
			switch {
			case tc.want == "" && err != nil:
				t.Fatalf("Validate(%q) = %v, want valid", tc.id, err)
			case tc.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want)):
				t.Fatalf("Validate(%q) = %v, want an error that says %q", tc.id, err, tc.want)
			}
		})
	}
}

// TestPlain: the short way accepts just the LogIDs of ASCII that the long one does.
func TestPlain(t *testing.T) {
	const characters = "a.*> \x7f\x00~!"
	var all func(s string, more int)
	all = func(s string, more int) {
		if plain, err := isPlain(s), validate(s); plain != (err == nil) {
			t.Errorf("%q: plain %v, %v", s, plain, err)
		}
		for i := 0; more > 0 && i < len(characters); i++ {
			all(s+characters[i:i+1], more-1)
		}
	}
	all("", 5)
	for _, s := range []string{"åcme.wéb", "a.\u2028", "a.\xff"} {
		if isPlain(s) {
			t.Errorf("%q is no ASCII", s)
		}
	}
}

func TestFromSubject(t *testing.T) {
	id, err := FromSubject("logs", "logs.acme.web.nginx")
	if err != nil || id != "acme.web.nginx" || Tenant(id) != "acme" {
		t.Fatalf("got %q, %v", id, err)
	}
	for _, subject := range []string{"logs", "logs.", "logs.acme", "logsacme.web", "other.acme.web"} {
		if _, err := FromSubject("logs", subject); !errors.Is(err, ErrInvalid) {
			t.Errorf("FromSubject(%q) = %v, want ErrInvalid", subject, err)
		}
	}
}

func FuzzFromSubject(f *testing.F) {
	for _, s := range []string{"logs.a.b", "logs.a", "logs.a.*", "logs.\xff.b", "logs..b", "logs.a.b\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		id, err := FromSubject("logs", subject)
		if err != nil {
			return
		}
		if "logs."+id != subject || len(id) > MaxBytes || !utf8.ValidString(id) || strings.ContainsAny(id, "\x00 \t\r\n") {
			t.Fatalf("accepted %q as %q", subject, id)
		}
		if Tenant(id) == "" || Tenant(id) == id {
			t.Fatalf("%q has tenant %q", id, Tenant(id))
		}
	})
}

// TestFaults: every refusal has a kind out of a fixed few, which metrics have as a label.
func TestFaults(t *testing.T) {
	for subject, want := range map[string]string{
		"logs.acme": "no_log_token", "other.acme.web": "outside_prefix", "logs.acme..web": "empty", "logs.acme.>": "wildcard",
		"logs.acme.a b": "bad_character", "logs.acme.\xff": "bad_character",
		"logs.acme." + strings.Repeat("b", MaxBytes): "too_long",
	} {
		_, err := FromSubject("logs", subject)
		if got := FaultOf(err); got != want || !slices.Contains(Faults(), got) {
			t.Errorf("%.40q: %v is %q, want %q", subject, err, got, want)
		}
	}
	if got := FaultOf(errors.New("another")); got != "other" {
		t.Errorf("another error is %q", got)
	}
}
