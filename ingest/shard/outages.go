package shard

import (
	"log/slog"

	"dormouse/internal/outage"
)

// Outages are what the owners of shards try again and again, each in its epoch, and how the log of their process speaks
// of that. When JetStream or the bucket is away all shards meet it, and it is one outage.
type Outages struct {
	Unowned, HeldUp, queue, source, full, publishing, trim, checkpoint, shorten, Unread, requests *outage.Log
	merge, garbage, sweep, late, expire                                                           *outage.Log
	malformed, elsewhere, rejected                                                                *outage.Log
}

// NewOutages returns those of a node.
func NewOutages(log *slog.Logger) Outages {
	return Outages{
		Unowned: outage.New(log, "the shard is not owned; trying to own it", "all shards are owned, or another node's"),
		HeldUp:  outage.New(log, "the shard does not get on", "all shards get on again"),
		queue:   outage.New(log, "ready logs could not be queued; trying again", "ready logs are queued again"),
		source:  outage.New(log, "the source consumer ended; making a new one", "there is a source consumer again"),
		full: outage.New(log, "the buffer is at its limit: not pulling until workers have drained it",
			"the buffer has room: pulling again"),
		publishing: outage.New(log, "messages could not be published elsewhere (to DORMOUSE_REJECTED, or once more to "+
			"their logs), and the shard "+
			"waits for that; trying again", "what had to be published elsewhere is: the shard goes on"),
		trim: outage.New(log, "the source stream could not be trimmed; trying again", "the source stream is "+
			"trimmed again"),
		checkpoint: outage.New(log, "no checkpoint could be taken; trying again", "a checkpoint was taken"),
		shorten: outage.New(log, "the manifest was not shortened; the next checkpoint does it", "the manifest is "+
			"shortened again"),
		Unread: outage.New(log, "could not own the shard: what a takeover needs of the archive could not be read; leaving "+
			"it to other nodes, or trying again if there is none", "the archive can be read"),
		merge: outage.New(log, "merges could not be queued; trying again", "merges are queued again"),
		garbage: outage.New(log, "merged segments could not be deleted; trying again", "merged segments are deleted "+
			"again"),
		sweep: outage.New(log, "the bucket could not be looked through for garbage; trying again", "the bucket is looked "+
			"through again"),
		expire: outage.New(log, "what policies keep no longer does not expire; trying again", "what policies keep no longer "+
			"expires again"),
		late: outage.New(log, "refused a commit of a segment that was named long ago", ""),
		requests: outage.New(log, "a request was not answered, since reading the local cache failed", "requests are "+
			"answered again"),
		malformed: outage.New(log, "refused a malformed commit", ""),
		elsewhere: outage.New(log, "refused a commit: its worker has another --archive, or none that it can name", ""),
		rejected:  outage.New(log, "a message is no entry of a log; it is put aside in DORMOUSE_REJECTED", ""),
	}
}

// Of returns those of one shard.
func (o Outages) Of(args ...any) Outages {
	return Outages{
		Unowned: o.Unowned.Part(args...), HeldUp: o.HeldUp.Part(args...), queue: o.queue.Part(args...),
		source: o.source.Part(args...),
		full:   o.full.Part(args...), publishing: o.publishing.Part(args...), trim: o.trim.Part(args...),
		checkpoint: o.checkpoint.Part(args...), merge: o.merge.Part(args...),
		garbage: o.garbage.Part(args...), sweep: o.sweep.Part(args...), expire: o.expire.Part(args...),
		late:    o.late.Part(args...),
		shorten: o.shorten.Part(args...), Unread: o.Unread.Part(args...),
		requests: o.requests.Part(args...), malformed: o.malformed.Part(args...), elsewhere: o.elsewhere.Part(args...),
		rejected: o.rejected.Part(args...),
	}
}

// Over ends them all, when the shard is none of this node's business any more.
func (o Outages) Over() {
	for _, one := range []*outage.Log{o.Unowned, o.HeldUp, o.queue, o.source, o.full, o.publishing, o.trim,
		o.checkpoint, o.merge, o.garbage, o.sweep, o.expire,
		o.shorten, o.Unread, o.requests} {
		one.Over()
	}
}
