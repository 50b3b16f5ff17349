package store

// Place tells where the files are, with all paths absolute and no default left
// open.
func (d *Durable) Place() Place { return d.place }
