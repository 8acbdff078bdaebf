package gate

// Text is all that this package makes in the schema twinspan, for those who have to know
// what agents made.
func Text() string { return gateSQL + asideSQL + keepSQL + makeClaims }
