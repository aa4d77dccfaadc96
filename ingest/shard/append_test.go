package shard

import (
	"context"
	"errors"
	"testing"

	"dormouse/internal/natstest"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// TestStillInManifest: an owner whose last record is not there, or is another one, is fenced; one that cannot ask is
// not.
func TestStillInManifest(t *testing.T) {
	o := claimed(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.claim.chain.stillThere(canceled); err == nil || errors.Is(err, manifest.ErrFenced) {
		t.Errorf("not asked: %v", err)
	}
	if err := o.claim.chain.stillThere(t.Context()); err != nil {
		t.Errorf("its record is there: %v", err)
	}
	natstest.LoseEnd(t, o.site.JS, wire.ManifestStream, 0)
	if err := o.claim.chain.stillThere(t.Context()); !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("its record is gone: %v", err)
	}
	m, err := manifest.Open(t.Context(), o.site.JS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if seq, err := m.Append(t.Context(), manifest.Record{Kind: manifest.Claim, Epoch: 1, Owner: "another"}); err != nil ||
		seq != o.ledger.mu.pos.ManifestSeq {
		t.Fatalf("another record is %d, want %d: %v", seq, o.ledger.mu.pos.ManifestSeq, err)
	}
	if err := o.claim.chain.stillThere(t.Context()); !errors.Is(err, manifest.ErrFenced) {
		t.Errorf("another record is in its place: %v", err)
	}
}
