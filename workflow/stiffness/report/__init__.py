"""The report room: tables and pictures to something a reader can use."""
