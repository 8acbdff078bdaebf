package api

import "time"

// History is what a link did lately, as this side saw it.
type History struct {
	Link         string          `json:"link" doc:"Name of the link"`
	EverySeconds float64         `json:"everySeconds" doc:"Time between two samples; where more passed the agent did not run"`
	Samples      []HistorySample `json:"samples" nullable:"false" doc:"The samples, oldest first"`
}

// HistorySample is how a link stood at a moment. What was not known is missing.
type HistorySample struct {
	At                    time.Time `json:"at" doc:"The moment"`
	Phase                 Phase     `json:"phase" doc:"What the link did"`
	LagSeconds            *float64  `json:"lagSeconds,omitempty" doc:"How far the secondary was behind"`
	LagBytes              *int64    `json:"lagBytes,omitempty" doc:"The same in bytes of the primary's log"`
	TransactionsPerSecond *float64  `json:"transactionsPerSecond,omitempty" doc:"Source transactions applied"`
	ChangesPerSecond      *float64  `json:"changesPerSecond,omitempty" doc:"Rows inserted, updated and deleted"`
	BytesPerSecond        *float64  `json:"bytesPerSecond,omitempty" doc:"Bytes of change data"`
	SeedBytesPerSecond    *float64  `json:"seedBytesPerSecond,omitempty" doc:"Rate of the first copy; missing in other phases"`
}
