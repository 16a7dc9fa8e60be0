"""What travels in each package and draws: it reads only a published package and LoRAs."""
