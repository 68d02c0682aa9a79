package process

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

// maxLine bounds what is kept of one line, in bytes.
const maxLine = 64 << 10

// Relay copies a child's output to log, one record per line, at the severity the line itself
// states (klog, zap's JSON, logrus). A line that states none continues the one before it. Each
// message is also given to each of also. redact, if there is one, changes each message before. Relay
// returns when r ends.
func Relay(r io.Reader, log *slog.Logger, redact func(string) string, also ...func(msg string)) {
	in := bufio.NewReaderSize(r, maxLine)
	last := slog.LevelInfo
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) { // drop the rest of an overlong line
			line = bytes.Clone(line) // the next read overwrites it
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			level, msg, ok := parseLine(string(line))
			if redact != nil {
				msg = redact(msg)
			}
			if !ok {
				level = last
			}
			last = level
			log.Log(context.Background(), level, msg)
			for _, f := range also {
				f(msg)
			}
		}
		if err != nil {
			return
		}
	}
}

// parseLine splits a log line into severity and message; ok tells whether it stated a severity.
func parseLine(line string) (level slog.Level, msg string, ok bool) {
	switch {
	case isKlog(line):
		// What follows is the thread id, of no use to anyone, and where it was logged.
		_, msg, _ := strings.Cut(strings.TrimLeft(line[len("I0102 15:04:05.000000 "):], " "), " ")
		return klogLevels[line[0]], msg, true
	case strings.HasPrefix(line, "{"):
		var entry struct {
			Level    string `json:"level"`
			Severity string `json:"severity"` // kine's word for level, and message for msg
			Msg      string `json:"msg"`
			Message  string `json:"message"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level+entry.Severity != "" {
			return levelOf(cmp.Or(entry.Level, entry.Severity)), jsonMessage(line, cmp.Or(entry.Msg, entry.Message)), true
		}
	case strings.HasPrefix(line, "time="):
		if _, rest, found := strings.Cut(line, " level="); found {
			name, rest, _ := strings.Cut(rest, " ")
			return levelOf(name), rest, true
		}
	}
	return slog.LevelInfo, line, false
}

var klogLevels = map[byte]slog.Level{'I': slog.LevelInfo, 'W': slog.LevelWarn, 'E': slog.LevelError, 'F': slog.LevelError}

// isKlog recognises klog's header, e.g. "I1122 10:50:16.123456    1234 server.go:71] …".
func isKlog(line string) bool {
	if len(line) < 22 || line[5] != ' ' || line[8] != ':' || line[11] != ':' || line[14] != '.' || line[21] != ' ' {
		return false
	}
	_, known := klogLevels[line[0]]
	_, err := strconv.Atoi(line[1:5])
	return known && err == nil
}

func levelOf(name string) slog.Level {
	switch strings.Trim(strings.ToLower(name), `"`) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "err", "fatal", "panic", "dpanic":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// jsonMessage is the entry's message followed by its other fields as they stand.
func jsonMessage(line, msg string) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &fields) != nil {
		return line
	}
	for _, header := range []string{"level", "severity", "ts", "time", "msg", "message", "logger"} {
		delete(fields, header)
	}
	if len(fields) == 0 {
		return msg
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return line
	}
	return msg + " " + string(rest)
}
