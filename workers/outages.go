package workers

import (
	"log/slog"

	"dormouse/internal/outage"
)

// outages are what the workers of a pool try again and again, and how its log speaks of that. The workers share them:
// what one of them cannot do the others cannot do either.
type outages struct {
	queue, fetch, merges, put, items, merged, poison *outage.Log
}

func newOutages(log *slog.Logger) outages {
	return outages{
		queue:  outage.New(log, "the SyncQueue does not answer; trying again", "the SyncQueue answers"),
		fetch:  outage.New(log, "fetching work items failed; trying again", "work items can be fetched again"),
		merges: outage.New(log, "fetching merges failed; trying again", "merges can be fetched again"),
		put:    outage.New(log, "a segment could not be put; trying again", "segments can be put again"),
		items:  outage.New(log, "gave a work item back", "work items are done again"),
		merged: outage.New(log, "gave a merge back", "merges are done again"),
		poison: outage.New(log, "dropped a work item that cannot be worked on", ""),
	}
}
