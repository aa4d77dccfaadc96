package hostile

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestNothingEscapesTheJudge: what was trimmed before it could be looked at is judged as well.
func TestNothingEscapesTheJudge(t *testing.T) {
	sent := publication{subject: "logs.acme.web", block: []byte("NATS/1.0 404\r\n\r\n"), payload: []byte("p")}
	read := map[string]string{
		"kept":          `{"log":"acme.web","seq":7,"headers":{},"data":"p"}`,
		"kept, cut":     `{"log":"acme.web","seq":7,"headers":{},"data":""}`,
		"another's log": `{"log":"acme.db","seq":7,"headers":{},"data":"p"}`,
	}
	aside := map[string]*nats.Msg{
		"aside": {Header: nats.Header{"Dormouse-Sequence": {"7"}, "Dormouse-Subject": {"logs.acme.web"}},
			Data: []byte("p")},
		"aside, cut": {Header: nats.Header{"Dormouse-Sequence": {"7"}, "Dormouse-Subject": {"logs.acme.web"}}},
		"another's, aside": {Header: nats.Header{"Dormouse-Sequence": {"7"}, "Dormouse-Subject": {"logs.acme.db"}},
			Data: []byte("p")},
	}
	for name, fine := range map[string]bool{"kept": true, "kept, cut": false, "another's log": false, "nowhere": false,
		"aside": true, "aside, cut": false, "another's, aside": false} {
		j := newJudge()
		j.tell([]publication{sent}, map[int]ack{0: {Seq: 7}}, func(uint64) (publication, error) {
			return publication{}, errors.New("it is gone")
		})
		lines := make(map[uint64]string)
		if text := read[name]; text != "" {
			lines[7] = text
		}
		if msg := aside[name]; msg != nil {
			if err := j.tellRejected(msg); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := j.compare(lines); (err == nil) != fine {
			t.Errorf("%s: %v", name, err)
		}
		if !j.logs()["acme.web"] {
			t.Errorf("%s: its log is not read", name)
		}
	}
}
