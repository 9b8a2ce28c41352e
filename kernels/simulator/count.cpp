// Counts what memory would have to do (mode "count").
