package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"time"
)

// logLevels by their flag values.
var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn,
	"error": slog.LevelError}

func newLogger(w io.Writer, format, level string) *slog.Logger {
	options := &slog.HandlerOptions{Level: logLevels[level], ReplaceAttr: readable}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// readable writes durations as text, like 1.5s, in every format; in JSON they would be numbers without a unit. It hides
// secrets, too.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return redactAttr(a)
}

// toldError is an error that the log has told of: it must not be printed again.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }

// tell makes what serve ends with a line of its log when that is JSON, so that all of standard error is. In the text
// format errors are printed as those of all commands are.
func (c *serveConfig) tell(log *slog.Logger, err error) error {
	if err == nil || c.logFormat.value != "json" || errors.As(err, &toldError{}) {
		return err
	}
	log.Error("dormouse serve could not start", "error", err)
	return toldError{err}
}

// tellEnd says that the process has stopped, after how long, and why. Nothing of it runs any more.
func (c *serveConfig) tellEnd(log *slog.Logger, began time.Time, err error) error {
	served := time.Since(began).Round(time.Millisecond)
	if err == nil {
		log.Info("dormouse has stopped", "served", served, "why", "told to end")
		return nil
	}
	log.Error("dormouse has stopped", "served", served, "why", "a part of it failed", "error", err)
	if c.logFormat.value != "json" {
		return err
	}
	return toldError{err}
}

// adoptLog makes the log that of the libraries too which write to Go's own.
func adoptLog(w io.Writer, log *slog.Logger) {
	if w == os.Stderr {
		slog.SetDefault(log)
	}
}
