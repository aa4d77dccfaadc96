package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dormouse/internal/outage"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

// mostOfAKind is how many problems of one kind are told one by one.
const mostOfAKind = 10

// problemsOf says what is wrong with a system, a line each with what to try, what matters most first. None means that
// all of it is served, archived and readable.
func problemsOf(s client.Status) []string {
	problems := []string{}
	for _, kind := range []func(client.Status) []string{
		archivesDiffer, shardsUnserved, shardsStuck, processesSilent, bucketsFail, processesNotReady, workMissing, namesTwice,
	} {
		lines := kind(s)
		if more := len(lines) - mostOfAKind; more > 0 {
			lines = append(lines[:mostOfAKind:mostOfAKind], fmt.Sprintf("and %d more of that kind", more))
		}
		for _, line := range lines {
			problems = append(problems, wire.Printable(line))
		}
	}
	return problems
}

// archivesDiffer: what one process archives the others would look for elsewhere.
func archivesDiffer(s client.Status) []string {
	users := make(map[string][]string)
	for _, p := range s.Processes {
		if p.Archive != "" {
			users[p.Archive] = append(users[p.Archive], p.Name())
		}
	}
	if len(users) < 2 {
		return nil
	}
	var parts []string
	for _, url := range slices.Sorted(maps.Keys(users)) {
		parts = append(parts, fmt.Sprintf("%s (%s)", url, some(users[url])))
	}
	return []string{"processes have different archives: " + some(parts) +
		": give all of them the same --archive, and restart those that had another"}
}

// shardsUnserved: nothing of them is archived, and what is archived cannot be read.
func shardsUnserved(s client.Status) (lines []string) {
	var unowned []string
	for _, shard := range s.Shards {
		switch {
		case shard.Owner == nil && shard.Holder == "":
			unowned = append(unowned, shard.Source.Shard.String())
		case shard.Owner != nil && shard.Owner.State != wire.ShardOwned:
			left := ""
			if n := shard.Owner.RecordsLeft; n > 0 {
				left = fmt.Sprintf(", %d manifest records are left", n)
			}
			lines = append(lines, fmt.Sprintf("shard %s is being taken over by %s%s: wait; if it does not get on, see the log "+
				"of that process", shard.Source.Shard, shard.Name, left))
		}
	}
	if len(unowned) == 0 {
		return lines
	}
	try := "start a process: dormouse serve --roles ingest"
	if slices.ContainsFunc(s.Processes, func(p wire.Process) bool { return slices.Contains(p.Roles, roleIngest) }) {
		try = "the ingest processes take them within --lease; if not, their logs and /readyz say why"
	}
	return append([]string{fmt.Sprintf("%s no owner: %s", count("shard", "has", "have", unowned), try)}, lines...)
}

// shardsStuck: an owner is there, and does not get on.
func shardsStuck(s client.Status) (lines []string) {
	for _, shard := range s.Shards {
		if stuck := stuckIn(s.Processes, shard.Source.Shard); stuck != nil {
			lines = append(lines, fmt.Sprintf("shard %s is stuck%s since %s: %s%s", shard.Source.Shard, stuck.At(),
				stuck.Since.UTC().Format(time.RFC3339), outage.Short(stuck.Reason), stuck.Try(shard.Source.Shard)))
		}
	}
	return lines
}

// processesSilent: dead, frozen or cut off.
func processesSilent(s client.Status) (lines []string) {
	for _, p := range s.Silent {
		what := "does not answer"
		if len(p.Shards) > 0 {
			var shards []string
			for _, shard := range p.Shards {
				shards = append(shards, shard.String())
			}
			what = "does not answer, and holds the lease of " + count("shard", "", "", shards)
		}
		lines = append(lines, fmt.Sprintf("process %s %s: if it is dead others take its shards within --lease; else it "+
			"is frozen or cut off: look at its host, or end it", p.Name, what))
	}
	return lines
}

func bucketsFail(s client.Status) (lines []string) {
	for _, p := range s.Processes {
		if p.Bucket != "" {
			lines = append(lines, fmt.Sprintf("the bucket of process %s fails: %s: nothing is lost, entries wait; "+
				"check its URL and credentials, and the store itself", p.Name(), p.Bucket))
		}
	}
	return lines
}

func processesNotReady(s client.Status) (lines []string) {
	for _, p := range s.Processes {
		switch {
		case p.NotReady != "":
			lines = append(lines, fmt.Sprintf("process %s is not ready: %s: see its log", p.Name(), p.NotReady))
		case p.Looking:
			lines = append(lines, fmt.Sprintf("process %s does not find out whether it is ready: its bucket or NATS is slow; "+
				"see its log", p.Name()))
		}
	}
	return lines
}

// workMissing: what is due stays where it is.
func workMissing(s client.Status) []string {
	if s.Queue.Items == 0 || slices.ContainsFunc(s.Processes, func(p wire.Process) bool { return p.Workers > 0 }) {
		return nil
	}
	return []string{fmt.Sprintf("%d work items wait, and no process has workers: start one: dormouse serve --roles worker",
		s.Queue.Items)}
}

// namesTwice: processes that take each other's leases for their own.
func namesTwice(s client.Status) (lines []string) {
	seen := make(map[string]int)
	for _, p := range s.Processes {
		if seen[p.ID]++; seen[p.ID] == 2 {
			lines = append(lines, fmt.Sprintf("two processes are called %s: a data directory was copied; end one, and "+
				"remove the file node-id from its --data", p.Name()))
		}
	}
	return lines
}

// count puts a list behind its noun.
func count(noun, one, many string, all []string) string {
	verb := one
	if len(all) != 1 {
		noun, verb = noun+"s", many
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", noun, some(all), verb))
}

// some lists the first few.
func some(all []string) string {
	if len(all) > mostOfAKind {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:mostOfAKind], ", "), len(all)-mostOfAKind)
	}
	return strings.Join(all, ", ")
}
