package archtest

// layer is how high a package stands. It imports strictly lower layers only, so
// packages of one layer, the engines above all, never know each other.
type layer int

// The layers, from the ground up.
const (
	ground    layer = iota // words that everything uses
	pure                   // no I/O of their own beyond files, no clock, no goroutine
	derived                // pure, on top of pure ones
	faces                  // what people and programs see: they know only the API
	commands               // the command line, on top of the client
	services               // sessions to PostgreSQL, peers, servers
	stores                 // what lies in a linked database
	engines                // each does one thing to databases
	whole                  // what several engines do together
	sides                  // one side of a link: its record
	positions              // where both sides of a link are read
	rooms                  // what one side of a link does
	links                  // where engines meet
	agents                 // the process
	programs               // what main starts
	mains
)

// place is a package's entry in the table.
type place struct {
	layer layer
	pgx   bool // may import PostgreSQL's driver
	tests bool // only tests, and other packages for tests, import it
}

// places lists every package of the module, below its root. A package that is
// planned but does not exist yet has its place here already.
var places = map[string]place{
	"api":              {layer: ground},
	"internal/lsn":     {layer: ground},
	"internal/sqlname": {layer: ground},
	"internal/problem": {layer: ground},
	"internal/durable": {layer: ground},

	"client":             {layer: pure},
	"internal/pgoutput":  {layer: pure},
	"internal/wire":      {layer: pure},
	"internal/role":      {layer: pure},
	"internal/ddl":       {layer: pure},
	"internal/rowtext":   {layer: pure},
	"internal/config":    {layer: pure},
	"internal/telemetry": {layer: pure},
	"internal/terminal":  {layer: pure},
	"internal/audit":     {layer: pure},
	"internal/turns":     {layer: pure},
	"internal/lag":       {layer: pure},
	"internal/tier":      {layer: pure},
	"internal/door":      {layer: pure},
	"internal/events":    {layer: pure},
	"internal/history":   {layer: pure},
	"internal/notify":    {layer: pure},

	"internal/group":   {layer: derived},
	"internal/access":  {layer: derived},
	"internal/metrics": {layer: derived},

	"internal/httpapi": {layer: faces},
	"internal/web":     {layer: faces},
	"internal/cli":     {layer: commands},

	"internal/hooks":    {layer: services},
	"internal/pg":       {layer: services, pgx: true},
	"internal/peer":     {layer: services},
	"internal/instance": {layer: services, pgx: true},
	"internal/member":   {layer: stores},
	"internal/backup":   {layer: stores, pgx: true},
	"internal/rights":   {layer: stores, pgx: true},
	"internal/catalog":  {layer: stores, pgx: true},

	"internal/lease":       {layer: engines, pgx: true},
	"internal/usage":       {layer: engines, pgx: true},
	"internal/capture":     {layer: engines, pgx: true},
	"internal/seed":        {layer: engines, pgx: true},
	"internal/apply":       {layer: engines, pgx: true},
	"internal/schema":      {layer: engines, pgx: true},
	"internal/sequence":    {layer: engines, pgx: true},
	"internal/largeobject": {layer: engines, pgx: true},
	"internal/lost":        {layer: engines, pgx: true},
	"internal/reorder":     {layer: engines},
	"internal/gate":        {layer: engines, pgx: true},
	"internal/syncrep":     {layer: engines, pgx: true},
	"internal/origin":      {layer: engines},
	"internal/verify":      {layer: engines, pgx: true},
	"internal/assess":      {layer: engines, pgx: true},
	"internal/pgbackrest":  {layer: engines},

	"internal/dbcopy":  {layer: whole, pgx: true},
	"internal/restore": {layer: whole, pgx: true},
	"internal/flow":    {layer: whole},
	"internal/drift":   {layer: whole},

	"internal/side": {layer: sides, pgx: true},

	"internal/meet": {layer: positions, pgx: true},

	"internal/verification": {layer: rooms, pgx: true},
	"internal/auditor":      {layer: rooms, pgx: true},
	"internal/dbroles":      {layer: rooms, pgx: true},
	"internal/uncarried":    {layer: rooms, pgx: true},
	"internal/outofband":    {layer: rooms, pgx: true},
	"internal/resync":       {layer: rooms, pgx: true},
	"internal/schemawatch":  {layer: rooms, pgx: true},
	"internal/rejoin":       {layer: rooms, pgx: true},
	"internal/syncmode":     {layer: rooms, pgx: true},
	"internal/upstream":     {layer: rooms, pgx: true},
	"internal/replay":       {layer: rooms, pgx: true},

	"internal/link":  {layer: links, pgx: true},
	"internal/agent": {layer: agents},
	"internal/setup": {layer: agents},
	"internal/demo":  {layer: programs, pgx: true},
	"cmd/twinspan":   {layer: mains},
	"ops/release":    {layer: mains},

	"internal/archtest":          {tests: true, layer: mains},
	"internal/pgtest":            {tests: true, layer: stores, pgx: true},
	"internal/httpapi/agenttest": {tests: true, layer: mains},
	"internal/linktest":          {tests: true, layer: mains, pgx: true},
	"internal/walk":              {tests: true, layer: pure},
	"internal/transcript":        {tests: true, layer: ground},
	"internal/leaks":             {tests: true, layer: ground},
	"internal/attack":            {tests: true, layer: pure},
}

// emptyNames say nothing about what a package is for.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "shared", "lib"}

// mostLines a file may have, tests and generated files aside.
const mostLines = 600
