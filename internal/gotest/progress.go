package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// sayEvery is how often at least something is printed.
const sayEvery = 15 * time.Second

// event is what go test -json prints; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string
	Elapsed                       float64 // seconds
}

// progress is what is known of all packages.
type progress struct {
	out    io.Writer
	began  time.Time
	said   time.Time
	now    func() time.Time
	pkgs   map[string]*pkg
	builds map[string]*strings.Builder // output of what does not compile, by import path
	passed int                         // tests
	failed []string                    // tests and packages
	ended  int                         // packages
}

// pkg is a package whose tests run.
type pkg struct {
	began   time.Time
	output  map[string]*strings.Builder // by test; "" is the package's own
	running map[string]time.Time
	tests   int
	slowest string // test
	longest float64
	failed  []string
}

// report prints what comes of the events until they end, and reports whether something failed.
func report(events io.Reader, out io.Writer) (failed bool) {
	p := &progress{out: out, began: time.Now(), said: time.Now(), now: time.Now, pkgs: make(map[string]*pkg),
		builds: make(map[string]*strings.Builder)}
	lines := make(chan string)
	go func() {
		defer close(lines)
		reader := bufio.NewReader(events)
		for {
			line, err := reader.ReadString('\n')
			if line != "" {
				lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return p.end()
			}
			p.take(line)
		case <-tick.C:
			if p.now().Sub(p.said) >= sayEvery {
				p.say("%s", p.current())
			}
		}
	}
}

func (p *progress) say(format string, args ...any) {
	p.said = p.now()
	fmt.Fprintf(p.out, "%6s  %s\n", p.said.Sub(p.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// take takes one line of go test up. One that is no event is printed as it is.
func (p *progress) take(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(p.out, line)
		return
	}
	switch e.Action {
	case "build-output":
		p.buildOutput(e.ImportPath).WriteString(e.Output)
		return
	case "build-fail":
		return
	}
	k := p.pkgs[e.Package]
	if k == nil {
		k = &pkg{began: p.now(), output: make(map[string]*strings.Builder), running: make(map[string]time.Time)}
		p.pkgs[e.Package] = k
	}
	switch e.Action {
	case "run", "cont":
		k.running[e.Test] = p.now()
	case "pause":
		delete(k.running, e.Test)
	case "output":
		if k.output[e.Test] == nil {
			k.output[e.Test] = &strings.Builder{}
		}
		k.output[e.Test].WriteString(e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			p.endPackage(e, k)
		} else {
			p.endTest(e, k)
		}
	}
}

func (p *progress) buildOutput(path string) *strings.Builder {
	if p.builds[path] == nil {
		p.builds[path] = &strings.Builder{}
	}
	return p.builds[path]
}

// endTest keeps the output of a test that failed, and of those inside it, until its package ends.
func (p *progress) endTest(e event, k *pkg) {
	delete(k.running, e.Test)
	if e.Action == "fail" {
		k.failed = append(k.failed, e.Test)
		return
	}
	delete(k.output, e.Test)
	if top := !strings.Contains(e.Test, "/"); top {
		p.passed, k.tests = p.passed+1, k.tests+1
		if e.Elapsed > k.longest {
			k.slowest, k.longest = e.Test, e.Elapsed
		}
	}
}

func (p *progress) endPackage(e event, k *pkg) {
	p.ended++
	delete(p.pkgs, e.Package)
	name := short(e.Package)
	if e.Action != "fail" {
		if k.tests == 0 {
			return // it has none, or none that was asked for
		}
		slowest := ""
		if k.longest >= 1 {
			slowest = fmt.Sprintf(", the slowest %s %.0f s", k.slowest, k.longest)
		}
		p.say("ok    %-26s %4.0f s  %d tests%s", name, e.Elapsed, k.tests, slowest)
		return
	}
	p.say("FAIL  %-26s %4.0f s", name, e.Elapsed)
	if build := p.builds[e.FailedBuild]; e.FailedBuild != "" && build != nil {
		fmt.Fprint(p.out, build)
	}
	for _, test := range k.failed {
		p.failed = append(p.failed, name+" "+test)
	}
	if len(k.failed) == 0 {
		p.failed = append(p.failed, name)
	}
	// What is left is the output of what failed and of what was running when the package ended; the package's own comes
	// last.
	for _, test := range slices.Sorted(maps.Keys(k.output)) {
		if test != "" {
			fmt.Fprint(p.out, k.output[test])
		}
	}
	if own := k.output[""]; own != nil {
		fmt.Fprint(p.out, own)
	}
}

// current says what is being run, the longest first, or built.
func (p *progress) current() string {
	type test struct {
		name  string
		since time.Time
	}
	var tests []test
	for path, k := range p.pkgs {
		if len(k.running) == 0 {
			tests = append(tests, test{short(path) + " (building what it tests)", k.began})
		}
		for name, since := range k.running {
			if !strings.Contains(name, "/") {
				tests = append(tests, test{short(path) + " " + name, since})
			}
		}
	}
	if len(tests) == 0 {
		return "compiling; the first time this takes minutes"
	}
	slices.SortFunc(tests, func(a, b test) int { return a.since.Compare(b.since) })
	var said []string
	for _, t := range tests[:min(len(tests), 4)] {
		said = append(said, fmt.Sprintf("%s for %s", t.name, p.now().Sub(t.since).Round(time.Second)))
	}
	return "      running " + strings.Join(said, ", ")
}

// end sums up.
func (p *progress) end() (failed bool) {
	if len(p.failed) > 0 {
		p.say("FAIL  %d tests passed; failed:\n          %s", p.passed, strings.Join(p.failed, "\n          "))
		return true
	}
	p.say("ok    %d tests passed", p.passed)
	return false
}

func short(path string) string { return strings.TrimPrefix(path, "dormouse/") }
