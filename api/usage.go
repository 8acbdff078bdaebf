package api

import "time"

// Usage is what a managed instance was used as in a month: hours by vCores, role and state. An hour is one of UTC.
type Usage struct {
	Month        string        `json:"month" doc:"UTC" example:"2026-11"`
	Hours        []UsageHour   `json:"hours" nullable:"false" doc:"The hours, the first first; none before the first that was counted"`
	Totals       []UsageTotal  `json:"totals" nullable:"false" doc:"How many hours of each kind"`
	PayAsYouGo   UsagePayment  `json:"payAsYouGo" doc:"What is paid as it goes: all vCore hours, those of passive hours discounted"`
	OwnLicences  UsageLicences `json:"ownLicences" doc:"With licences of one's own: what the instance takes of their pool, and gives back in passive hours"`
	UnknownHours int           `json:"unknownHours" doc:"Hours that were declared passive, or of which nothing is known, and were not seen whole; they are counted in full"`
}

// UsageHour is one hour.
type UsageHour struct {
	Start        time.Time   `json:"start" doc:"When it began"`
	Tier         string      `json:"tier" doc:"Service tier"`
	VCores       int         `json:"vcores" doc:"The most in the hour: a change counts for all of it; 0 where none were declared"`
	StorageBytes int64       `json:"storageBytes" doc:"Storage declared; 0 for none"`
	Role         string      `json:"role" enum:"primary,secondary,standalone," doc:"primary: at least one link had its primary here; secondary: all that were here had their secondary; standalone: there was none; empty where that is not known"`
	State        string      `json:"state" enum:"active,passive,unknown" doc:"passive: all of the hour it was a secondary, declared to be passive, and nobody worked on it"`
	Why          string      `json:"why,omitempty" doc:"Why it was not passive, where it was declared so"`
	Declared     bool        `json:"declaredPassive" doc:"Whether it was declared passive in all of the hour that was seen"`
	Open         bool        `json:"open" doc:"Whether it has not ended: what it is may change"`
	Voids        []UsageVoid `json:"voids" nullable:"false" doc:"Who worked on it while it was declared to be passive, the first first"`
}

// UsageVoid is somebody who worked on an instance that was declared to be passive.
type UsageVoid struct {
	Role        string    `json:"role" doc:"Role that was logged in"`
	Database    string    `json:"database" doc:"Database"`
	Application string    `json:"application" doc:"What the client calls itself"`
	Client      string    `json:"client" doc:"Its address, or [local]"`
	FirstAt     time.Time `json:"firstAt" doc:"When that was first seen in the hour"`
}

// UsageTotal is the number of hours of one kind.
type UsageTotal struct {
	VCores     int    `json:"vcores" doc:"Of each hour"`
	Role       string `json:"role" doc:"As in hours"`
	State      string `json:"state" doc:"As in hours"`
	Hours      int    `json:"hours" doc:"How many, the one under way included"`
	VCoreHours int    `json:"vcoreHours" doc:"Their product"`
}

// UsagePayment is what is paid as it goes.
type UsagePayment struct {
	VCoreHours int `json:"vcoreHours" doc:"All"`
	Discount   int `json:"discountVcoreHours" doc:"Of passive hours that have ended"`
	Billed     int `json:"billedVcoreHours" doc:"What is left"`
}

// UsageLicences is what licences of one's own are taken for.
type UsageLicences struct {
	Taken     int `json:"takenVcoreHours" doc:"vCore hours for which the instance takes licences"`
	GivenBack int `json:"givenBackVcoreHours" doc:"vCore hours for which it gives them back"`
	Now       int `json:"nowTaken" doc:"Licences that it takes in the hour under way, as far as that is known"`
	BackNow   int `json:"nowGivenBack" doc:"Licences that it gives back in the hour under way, if that stays passive"`
}
