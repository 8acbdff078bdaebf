package peer

import (
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/twinspan/twinspan/internal/problem"
)

// The protocol versions that this agent speaks on a session.
const (
	protocolMin = 1
	protocolMax = 1
)

// maxHello bounds a hello, in bytes.
const maxHello = 4 << 10

// hello is the first thing that each side of a session says.
type hello struct {
	Min     int    `json:"min"`     // lowest protocol version spoken
	Max     int    `json:"max"`     // highest
	Agent   string `json:"agent"`   // the agent's id
	Name    string `json:"name"`    // what it calls itself
	Product string `json:"product"` // its release, for people
	Boot    int64  `json:"boot"`    // when its process began, ns since 1970: which of two sessions is of the living one
	Clock   int64  `json:"clock"`   // its clock when it wrote this, ns since 1970
	// Others are where else the agent may be dialled from now on: the members of its instance. Absent where it is one process on one host.
	Others []string `json:"others,omitempty"`
}

func decodeHello(b []byte) (hello, error) {
	var h hello
	if len(b) > maxHello || json.Unmarshal(b, &h) != nil {
		return hello{}, protocolError("the peer's hello cannot be understood")
	}
	if h.Min < 1 || h.Max < h.Min || !uuidPattern.MatchString(h.Agent) || !ValidName(h.Name) || len(h.Product) > 200 {
		return hello{}, protocolError("the peer's hello is not valid")
	}
	h.Product = line(clip(h.Product, 200))
	// A release that comes may say more than this one understands.
	h.Others = slices.DeleteFunc(h.Others, func(a string) bool { return a == "" || checkEndpoint(a) != nil })
	h.Others = h.Others[:min(len(h.Others), maxAddresses)]
	return h, nil
}

// commonVersion chooses the highest version that both sides speak.
func commonVersion(mine, theirs hello) (int, error) {
	v := min(mine.Max, theirs.Max)
	if v < mine.Min || v < theirs.Min {
		return 0, problem.New(problem.Incompatible, "peer_version", "no common protocol version: this agent (%s) speaks %d to %d, the peer (%s) %d to %d",
			mine.Product, mine.Min, mine.Max, theirs.Product, theirs.Min, theirs.Max).
			WithHint("upgrade the agent with the lower versions")
	}
	return v, nil
}

// exchangeHello says hello and hears the other's. Both sides write first; a hello is
// smaller than any socket's buffer.
func exchangeHello(rw io.ReadWriter, mine hello) (hello, error) {
	b, err := json.Marshal(mine)
	if err != nil {
		return hello{}, err
	}
	if _, err := rw.Write(appendFrame(nil, frameHello, b)); err != nil {
		return hello{}, err
	}
	kind, payload, err := readFrame(rw, nil, maxHello, nil)
	if err != nil {
		return hello{}, err
	}
	if kind != frameHello {
		return hello{}, protocolError("the peer began with frame kind %d, not with a hello", kind)
	}
	return decodeHello(payload)
}

func (e *Endpoint) hello() hello {
	h := hello{
		Min: protocolMin, Max: protocolMax, Agent: e.Identity.AgentID(), Name: e.name(), Product: e.Product,
		Boot: e.boot.UnixNano(), Clock: time.Now().UnixNano(),
	}
	if e.Others != nil {
		h.Others = e.Others()
	}
	if h.Product == "" {
		h.Product = "unknown"
	}
	return h
}
