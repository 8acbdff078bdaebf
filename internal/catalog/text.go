package catalog

// Text is all that makes the schema twinspan, for those who have to know what agents made.
func Text() string {
	return schemaSQL + homeSQL + auditSQL + togetherSQL + proofTable + replaySQL + leaseSQL + peerSQL + formerSQL
}
