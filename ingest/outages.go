package ingest

import (
	"log/slog"

	"dormouse/internal/outage"
)

// outages are what the owners of shards try again and again, each in its epoch, and how the log of their process speaks
// of that. When JetStream or the bucket is away all shards meet it, and it is one outage.
type outages struct {
	unowned, heldUp, queue, source, full, aside, trim, snapshot, shorten, part, requests *outage.Log
	malformed, elsewhere, rejected                                                       *outage.Log
}

func newOutages(log *slog.Logger) outages {
	return outages{
		unowned: outage.New(log, "the shard is not owned; trying to own it", "all shards are owned, or another node's"),
		heldUp:  outage.New(log, "the shard does not get on", "all shards get on again"),
		queue:   outage.New(log, "ready logs could not be queued; trying again", "ready logs are queued again"),
		source:  outage.New(log, "the source consumer ended; making a new one", "there is a source consumer again"),
		full: outage.New(log, "the buffer is at its limit: not pulling until workers have drained it",
			"the buffer has room: pulling again"),
		aside: outage.New(log, "messages could not be published elsewhere (to DORMOUSE_REJECTED, or once more to "+
			"their logs), and the shard "+
			"waits for that; trying again", "what had to be published elsewhere is: the shard goes on"),
		trim: outage.New(log, "the source stream could not be trimmed; trying again", "the source stream is "+
			"trimmed again"),
		snapshot: outage.New(log, "no snapshot of the catalog could be taken; trying again", "a snapshot of the "+
			"catalog was taken"),
		shorten: outage.New(log, "the manifest was not shortened; the next snapshot does it", "the manifest is "+
			"shortened again"),
		part: outage.New(log, "could not own the shard: a snapshot could not be read; leaving it to other nodes, or trying "+
			"again if there is none", "the snapshot can be read"),
		requests: outage.New(log, "a request was not answered, since reading the local cache failed", "requests are "+
			"answered again"),
		malformed: outage.New(log, "refused a malformed commit", ""),
		elsewhere: outage.New(log, "refused a commit: its worker has another --archive, or none that it can name", ""),
		rejected:  outage.New(log, "a message is no entry of a log; it is put aside in DORMOUSE_REJECTED", ""),
	}
}

// of returns those of one shard.
func (o outages) of(args ...any) outages {
	return outages{
		unowned: o.unowned.Part(args...), heldUp: o.heldUp.Part(args...), queue: o.queue.Part(args...),
		source: o.source.Part(args...),
		full:   o.full.Part(args...), aside: o.aside.Part(args...), trim: o.trim.Part(args...),
		snapshot: o.snapshot.Part(args...), shorten: o.shorten.Part(args...), part: o.part.Part(args...),
		requests: o.requests.Part(args...), malformed: o.malformed.Part(args...), elsewhere: o.elsewhere.Part(args...),
		rejected: o.rejected.Part(args...),
	}
}

// over ends them all, when the shard is none of this node's business any more.
func (o outages) over() {
	for _, one := range []*outage.Log{o.unowned, o.heldUp, o.queue, o.source, o.full, o.aside, o.trim, o.snapshot,
		o.shorten, o.part, o.requests} {
		one.Over()
	}
}
