package metricdoc

// Types.
const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// Roles.
const (
	ingest = "ingest"
	worker = "worker"
)

// Groups is the list, in the order of the page.
var Groups = []Group{
	{"Is anything wrong", []Metric{
		{Name: "dormouse_nats_connected", Type: gauge,
			Question: "Is the process cut off from NATS? 0 for more than a few seconds: look at the servers and " +
				"the network."},
		{Name: "dormouse_nats_reconnects_total", Type: counter, Question: "Does the connection flap?"},
		{Name: "dormouse_shards_unowned", Type: gauge, Role: ingest,
			Question: "Is there a shard that nobody serves? Take the maximum over the processes; above 0 for longer " +
				"than `--lease`: start ingest processes, and see `dormouse status`."},
		{Name: "dormouse_shard_stuck", Type: gauge, Role: ingest,
			Question: "Is there a shard that does not get on? `dormouse status` and `/readyz` say where, and what to do."},
		{Name: "dormouse_entries_lost_total", Type: counter, Role: ingest,
			Question: "Did a source stream's own limits, or a purge, drop entries before they were archived? " +
				"Above 0: raise the limits."},
		{Name: "dormouse_policies", Type: gauge, Role: ingest,
			Question: "Does every process go by the same policies? Different for more than some seconds: the one with the " +
				"older number cannot read them, see its `/readyz` and log."},
		{Name: "dormouse_puts_failing", Type: gauge,
			Question: "Does the bucket take nothing from this process? `/readyz` and `dormouse status` say why; entries wait."},
		{Name: "dormouse_put_failures_total", Type: counter,
			Question: "Does it refuse some, or fail now and then?"},
		{Name: "dormouse_claims_failed_total", Type: counter, Role: ingest,
			Question: "Is there a shard that this process should own and cannot? The log says why."},
		{Name: "dormouse_owner_stepdowns_total", Type: counter, Role: ingest,
			Question: "Do owners lose their shards, to a frozen process, a slow network or a stream that lost its end?"},
		{Name: "dormouse_scheduler_wheel_rebuilds_total", Type: counter, Role: ingest,
			Question: "Did the scheduler have to be mended, or the machine stand still?"},
	}},
	{"Taking entries in", []Metric{
		{Name: "dormouse_entries_ingested_total", Type: counter, Role: ingest,
			Question: "How many entries a second come in?"},
		{Name: "dormouse_logs_active", Type: gauge, Role: ingest,
			Question: "How many logs have something that is not archived? All others cost nothing."},
		{Name: "dormouse_logs_queued", Type: gauge, Role: ingest,
			Question: "How many logs are due and wait for workers? Growing while all workers are busy: more " +
				"workers, or a faster bucket."},
		{Name: "dormouse_buffer_entries", Type: gauge, Role: ingest,
			Question: "How many entries wait for the archive in this process?"},
		{Name: "dormouse_buffer_bytes", Type: gauge, Role: ingest,
			Question: "How near is the process to `--buffer-limit`, at which it stops pulling and JetStream " +
				"keeps the backlog?"},
		{Name: "dormouse_entries_rejected_total", Type: counter, Role: ingest,
			Question: "Does somebody publish what is no log? It is in the stream `DORMOUSE_REJECTED`."},
		{Name: "dormouse_rejections_total", Type: counter, Role: ingest,
			Labels: []Label{{"reason", []string{"bad_character", "empty", "headers", "no_log_token", "other", "outside_prefix",
				"refused", "skipped", "too_long", "wildcard"}}}, Question: "What is wrong with it?"},
		{Name: "dormouse_entries_skipped_total", Type: counter, Role: ingest,
			Question: "How much of a replay after a takeover was archived already?"},
		{Name: "dormouse_entries_republished_total", Type: counter, Role: ingest,
			Question: "Did a source stream lose its end in a power failure?"},
	}},
	{"Archiving", []Metric{
		{Name: "dormouse_sync_delay_seconds", Type: histogram, Role: ingest,
			Question: "How long does an entry wait until it is archived? It should stay near `--max-delay` or a policy's."},
		{Name: "dormouse_stream_lag", Type: gauge, Role: ingest,
			Question: "How many entries is the archive behind? For long above what comes in within " +
				"`--max-delay`: it does not keep up."},
		{Name: "dormouse_oldest_unarchived_seconds", Type: gauge, Role: ingest,
			Question: "How old is what is not archived? Above `--max-delay`: archiving is behind."},
		{Name: "dormouse_deadline_lateness_seconds", Type: histogram, Role: ingest,
			Question: "Are logs queued when they are due? Late: the owner or JetStream is overloaded."},
		{Name: "dormouse_entries_synced_total", Type: counter, Role: ingest,
			Question: "How many entries a second are archived? Less than come in for long: the backlog grows."},
		{Name: "dormouse_segments_committed_total", Type: counter, Role: ingest,
			Question: "How many objects are made, which is what a bucket costs?"},
		{Name: "dormouse_extents_refused_total", Type: counter, Role: ingest,
			Question: "How much work was done twice? Some after a takeover is usual."},
		{Name: "dormouse_logs_requeued_total", Type: counter, Role: ingest,
			Question: "Is work lost on its way, or slower than `--requeue-after`? Queued logs that nobody committed."},
		{Name: "dormouse_queue_publish_failures_total", Type: counter, Role: ingest,
			Question: "Is the SyncQueue full, or JetStream away?"},
		{Name: "dormouse_drain_requests_total", Type: counter, Role: ingest,
			Question: "How often do workers ask this owner?"},
		{Name: "dormouse_queue_items", Type: gauge,
			Question: "Is there work that nobody takes? Growing: start workers."},
		{Name: "dormouse_queue_oldest_seconds", Type: gauge,
			Question: "For how long has ready work been waiting? Near `--requeue-after`: no worker works, or " +
				"the bucket does not answer."},
	}},
	{"Workers", []Metric{
		{Name: "dormouse_workers", Type: gauge, Role: worker, Question: "How large is the pool?"},
		{Name: "dormouse_workers_busy", Type: gauge, Role: worker,
			Question: "Is it at its limit? Busy at the pool's size while queued logs grow: more workers, or a " +
				"faster bucket."},
		{Name: "dormouse_segment_put_seconds", Type: histogram, Role: worker,
			Question: "How fast does the bucket take objects?"},
		{Name: "dormouse_segment_bytes", Type: histogram, Role: worker, Question: "How large are the objects?"},
		{Name: "dormouse_segment_logs", Type: histogram, Role: worker,
			Question: "How many logs share an object? Few: raise `--max-delay` or `--linger` for fewer, larger ones."},
		{Name: "dormouse_work_items_total", Type: counter, Role: worker,
			Labels: []Label{{"outcome", []string{"abandoned", "done", "poison", "stale"}}},
			Question: "Does work succeed? abandoned: see the retries; stale is usual after a takeover; poison: " +
				"somebody else publishes to the queue."},
		{Name: "dormouse_worker_retries_total", Type: counter, Role: worker,
			Labels: []Label{{"stage", []string{"commit", "drain", "fetch", "put", "replace"}}},
			Question: "Which of its neighbours fails? put: the bucket; drain, commit and replace: the owner; fetch: " +
				"JetStream."},
		{Name: "dormouse_orphan_segments_total", Type: counter, Role: worker,
			Question: "How many objects were put in vain?"},
	}},
	{"Shards", []Metric{
		{Name: "dormouse_shards_owned", Type: gauge, Role: ingest,
			Question: "How are the shards spread? The sum is the number of shards, or some are not served."},
		{Name: "dormouse_shards_claiming", Type: gauge, Role: ingest, Question: "Is a takeover under way?"},
		{Name: "dormouse_takeover_records", Type: gauge, Role: ingest,
			Question: "How far is it: what is left to apply?"},
		{Name: "dormouse_takeover_entries", Type: gauge, Role: ingest, Question: "And what is left to replay?"},
		{Name: "dormouse_checkpoints_total", Type: counter, Role: ingest,
			Question: "Is the manifest kept short? None for long under load: see the log."},
	}},
	{"The archive", []Metric{
		{Name: "dormouse_segments_live", Type: gauge, Role: ingest,
			Question: "How many objects is the archive? It grows with what is kept, not with how often logs wake up."},
		{Name: "dormouse_fresh_segments", Type: gauge, Role: ingest,
			Question: "Do merges keep up? More than 32 for each shard, for long: give the pool more workers, or merges a " +
				"larger `--merge-share`."},
		{Name: "dormouse_merges_total", Type: counter, Role: worker, Question: "Are segments merged at all?"},
		{Name: "dormouse_merge_bytes_total", Type: counter, Role: worker,
			Labels:   []Label{{"direction", []string{"read", "written"}}},
			Question: "What do merges cost the bucket and the network?"},
		{Name: "dormouse_garbage_objects_total", Type: counter, Role: ingest,
			Question: "Is what merges have replaced deleted?"},
		{Name: "dormouse_garbage_bytes_total", Type: counter, Role: ingest, Question: "How much room did that free?"},
	}},
	{"The program", []Metric{
		{Name: "dormouse_build_info", Type: gauge, Labels: []Label{{"goversion", nil}, {"revision", nil}, {"version", nil}},
			Question: "Which version runs where?"},
	}},
}
