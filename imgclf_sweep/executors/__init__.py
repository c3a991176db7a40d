"""The hands: they run trainers in this process or in worker processes and turn whatever happens into an outcome."""
