package client

import (
	"bytes"
	"io"
	"net/http"
)

// Within answers requests by a handler in this process, as if they came from an address,
// HOST:PORT. Answers are held in memory.
func Within(h http.Handler, address string) http.RoundTripper { return within{h, address} }

type within struct {
	handler http.Handler
	address string
}

// RoundTrip implements http.RoundTripper.
func (t within) RoundTrip(r *http.Request) (*http.Response, error) {
	request := r.Clone(r.Context())
	request.RequestURI, request.RemoteAddr = r.URL.RequestURI(), t.address
	if request.Body == nil {
		request.Body = http.NoBody
	}
	answer := &held{header: http.Header{}}
	t.handler.ServeHTTP(answer, request)
	if err := request.Body.Close(); err != nil {
		return nil, err
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if answer.status == 0 {
		answer.status = http.StatusOK
	}
	return &http.Response{StatusCode: answer.status, Status: http.StatusText(answer.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: answer.header, Body: io.NopCloser(&answer.body), ContentLength: int64(answer.body.Len()), Request: r}, nil
}

// held is an answer in memory.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (h *held) Header() http.Header { return h.header }

// WriteHeader implements http.ResponseWriter.
func (h *held) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

// Write implements http.ResponseWriter.
func (h *held) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(p)
}
