"""What will be made, from config and files alone; the rule files are its only readers."""
