"""Real people who are not drawn: a list of names, and where a prompt has one of them.

A list knows few of those there are: it shows what is meant, and the rights ledgers decide who is drawn. A
name belongs in here in full, as it is written in Latin letters; names that are also common words
("Pink", "Jack Black" beside a union jack and black boots) would refuse what is innocent and stay out.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from valentina_pipeline.image.safety import LOOKALIKES, UnsafePrompt, joined, plain

NAMES = """
Donald Trump, Melania Trump, Ivanka Trump, Barron Trump, Joe Biden, Jill Biden, Hunter Biden, Kamala Harris,
Barack Obama, Michelle Obama, Bill Clinton, Hillary Clinton, Chelsea Clinton, George W. Bush, George Bush,
JD Vance, Mike Pence, Nancy Pelosi, Bernie Sanders, Alexandria Ocasio-Cortez, Elizabeth Warren, Ted Cruz,
Marco Rubio, Ron DeSantis, Nikki Haley, Gavin Newsom, Mitt Romney, Mitch McConnell, Pete Buttigieg,
Tulsi Gabbard, Robert F. Kennedy Jr., Justin Trudeau, Mark Carney, Claudia Sheinbaum,
Andres Manuel Lopez Obrador, Luiz Inacio Lula da Silva, Jair Bolsonaro, Javier Milei,
Cristina Fernandez de Kirchner, Gabriel Boric, Gustavo Petro, Nicolas Maduro, Nayib Bukele, Keir Starmer,
Rishi Sunak, Liz Truss, Boris Johnson, Theresa May, David Cameron, Tony Blair, Nigel Farage, Jeremy Corbyn,
Nicola Sturgeon, Emmanuel Macron, Brigitte Macron, Marine Le Pen, Nicolas Sarkozy, Carla Bruni,
Francois Hollande, Olaf Scholz, Angela Merkel, Friedrich Merz, Annalena Baerbock, Alice Weidel,
Ursula von der Leyen, Christine Lagarde, Giorgia Meloni, Matteo Salvini, Mario Draghi, Pedro Sanchez,
Isabel Diaz Ayuso, Mark Rutte, Geert Wilders, Viktor Orban, Donald Tusk, Robert Fico, Mette Frederiksen,
Sanna Marin, Greta Thunberg, Jens Stoltenberg, Volodymyr Zelensky, Volodymyr Zelenskyy, Olena Zelenska,
Vladimir Putin, Sergei Lavrov, Dmitry Medvedev, Alexander Lukashenko, Yulia Navalnaya, Recep Tayyip Erdogan,
Benjamin Netanyahu, Mahmoud Abbas, Mohammed bin Salman, Mohammed bin Rashid Al Maktoum, Abdel Fattah el-Sisi,
Bashar al-Assad, Ali Khamenei, Narendra Modi, Rahul Gandhi, Sonia Gandhi, Imran Khan, Sheikh Hasina,
Muhammad Yunus, Aung San Suu Kyi, Xi Jinping, Peng Liyuan, Tsai Ing-wen, Shigeru Ishiba, Fumio Kishida,
Sanae Takaichi, Kim Jong Un, Kim Yo Jong, Yoon Suk Yeol, Lee Jae-myung, Bongbong Marcos, Rodrigo Duterte,
Joko Widodo, Prabowo Subianto, Anwar Ibrahim, Jacinda Ardern, Anthony Albanese, Cyril Ramaphosa,
Julius Malema, Bola Tinubu, William Ruto, Paul Kagame, Antonio Guterres, Malala Yousafzai, Dalai Lama,
Pope Leo XIV, Ai Weiwei, Edward Snowden, Julian Assange, King Charles III, Queen Camilla, Prince William,
Kate Middleton, Prince Harry, Meghan Markle, Prince Andrew, Princess Anne, King Felipe VI, Queen Letizia,
Princess Leonor, Willem-Alexander, Queen Maxima, Queen Rania of Jordan, Emperor Naruhito, Princess Kako,
Albert II of Monaco, Charlene of Monaco, Crown Princess Victoria, Queen Margrethe II, Elon Musk, Jeff Bezos,
MacKenzie Scott, Lauren Sanchez, Bill Gates, Melinda Gates, Mark Zuckerberg, Priscilla Chan, Tim Cook,
Sundar Pichai, Satya Nadella, Sam Altman, Jensen Huang, Larry Ellison, Larry Page, Sergey Brin, Jack Dorsey,
Peter Thiel, Warren Buffett, Mark Cuban, Richard Branson, Bernard Arnault, Jack Ma, Ren Zhengfei,
Masayoshi Son, Mukesh Ambani, Nita Ambani, Gautam Adani, Rupert Murdoch, Anna Wintour, Sheryl Sandberg,
Marissa Mayer, Susan Wojcicki, Elizabeth Holmes, Sam Bankman-Fried, Oprah Winfrey, Taylor Swift, Beyonce,
Jay-Z, Rihanna, Lady Gaga, Katy Perry, Ariana Grande, Selena Gomez, Miley Cyrus, Billie Eilish, Dua Lipa,
Olivia Rodrigo, Sabrina Carpenter, Chappell Roan, Britney Spears, Christina Aguilera, Jennifer Lopez,
Mariah Carey, Celine Dion, Shakira, Alicia Keys, Nicki Minaj, Cardi B, Megan Thee Stallion, Doja Cat,
Lana Del Rey, Avril Lavigne, Gwen Stefani, Kylie Minogue, Dolly Parton, Shania Twain, Janet Jackson,
Justin Bieber, Justin Timberlake, Ed Sheeran, Harry Styles, Zayn Malik, Bruno Mars, Shawn Mendes, Kanye West,
Kendrick Lamar, Eminem, Snoop Dogg, Travis Scott, Post Malone, Chris Brown, Lil Nas X, Paul McCartney,
Ringo Starr, Mick Jagger, Keith Richards, Elton John, Bruce Springsteen, Bob Dylan, Phil Collins,
Peter Gabriel, Robbie Williams, Rod Stewart, Freddie Mercury, David Bowie, Michael Jackson, Whitney Houston,
Amy Winehouse, Elvis Presley, Karol G, Daddy Yankee, Luis Fonsi, Enrique Iglesias, Julio Iglesias,
Caetano Veloso, Aya Nakamura, Stromae, Burna Boy, Wizkid, Angelique Kidjo, Arijit Singh, Shreya Ghoshal,
AR Rahman, Jungkook, Kim Taehyung, Park Jimin, Jennie Kim, Lalisa Manobal, Kim Jisoo, Yoko Ono, Jay Chou,
Faye Wong, Utada Hikaru, Helene Fischer, Nana Mouskouri, Andrea Bocelli, Placido Domingo, Anna Netrebko,
Yo-Yo Ma, Tom Cruise, Tom Hanks, Tom Holland, Tom Hardy, Tom Hiddleston, Brad Pitt, Angelina Jolie,
Jennifer Aniston, Leonardo DiCaprio, Johnny Depp, Amber Heard, Keanu Reeves, George Clooney, Amal Clooney,
Matt Damon, Ben Affleck, Will Smith, Jada Pinkett Smith, Denzel Washington, Morgan Freeman,
Samuel L. Jackson, Robert De Niro, Al Pacino, Jack Nicholson, Harrison Ford, Clint Eastwood,
Arnold Schwarzenegger, Sylvester Stallone, Bruce Willis, Dwayne Johnson, Vin Diesel, Jason Statham,
Jason Momoa, Mark Wahlberg, Ryan Reynolds, Ryan Gosling, Hugh Jackman, Chris Hemsworth, Chris Evans,
Chris Pratt, Robert Downey Jr., Robert Pattinson, Christian Bale, Joaquin Phoenix, Jake Gyllenhaal,
Timothee Chalamet, Austin Butler, Cillian Murphy, Pedro Pascal, Oscar Isaac, Adam Driver, Jared Leto,
Zac Efron, Daniel Radcliffe, Rupert Grint, Emma Watson, Emma Stone, Emma Thompson, Emma Roberts,
Scarlett Johansson, Jennifer Lawrence, Natalie Portman, Anne Hathaway, Margot Robbie, Gal Gadot, Zendaya,
Sydney Sweeney, Ana de Armas, Anya Taylor-Joy, Florence Pugh, Millie Bobby Brown, Jenna Ortega,
Emilia Clarke, Sophie Turner, Maisie Williams, Kristen Stewart, Dakota Johnson, Dakota Fanning, Elle Fanning,
Megan Fox, Mila Kunis, Ashton Kutcher, Jessica Alba, Jessica Chastain, Amy Adams, Nicole Kidman,
Cate Blanchett, Charlize Theron, Julia Roberts, Sandra Bullock, Meryl Streep, Julianne Moore, Sharon Stone,
Demi Moore, Michelle Pfeiffer, Cameron Diaz, Drew Barrymore, Reese Witherspoon, Kate Winslet,
Keira Knightley, Helena Bonham Carter, Judi Dench, Helen Mirren, Ian McKellen, Patrick Stewart, Daniel Craig,
Pierce Brosnan, Benedict Cumberbatch, Hugh Grant, Colin Firth, Idris Elba, Lupita Nyong'o, Viola Davis,
Halle Berry, Michael B. Jordan, Kate Beckinsale, Rosamund Pike, Blake Lively, Eva Longoria, Eva Mendes,
Salma Hayek, Penelope Cruz, Javier Bardem, Antonio Banderas, Sofia Vergara, Monica Bellucci, Sophia Loren,
Marion Cotillard, Vincent Cassel, Lea Seydoux, Juliette Binoche, Isabelle Huppert, Gerard Depardieu, Omar Sy,
Mads Mikkelsen, Diane Kruger, Christoph Waltz, Til Schweiger, Priyanka Chopra, Deepika Padukone,
Ranveer Singh, Aishwarya Rai, Amitabh Bachchan, Shah Rukh Khan, Salman Khan, Aamir Khan, Alia Bhatt,
Katrina Kaif, Kareena Kapoor, Jackie Chan, Jet Li, Donnie Yen, Michelle Yeoh, Gong Li, Zhang Ziyi,
Fan Bingbing, Ken Watanabe, Lee Byung-hun, Song Hye-kyo, Jun Ji-hyun, Marilyn Monroe, Audrey Hepburn,
Grace Kelly, Steven Spielberg, Quentin Tarantino, Martin Scorsese, Christopher Nolan, Woody Allen,
Stephen King, J. K. Rowling, Margaret Atwood, Salman Rushdie, Haruki Murakami, David Attenborough,
Gordon Ramsay, Jamie Oliver, Ellen DeGeneres, Jimmy Fallon, Jimmy Kimmel, Stephen Colbert, Conan O'Brien,
Jon Stewart, Joe Rogan, Tucker Carlson, Jordan Peterson, Andrew Tate, Howard Stern, Simon Cowell,
Piers Morgan, Kim Kardashian, Kourtney Kardashian, Khloe Kardashian, Kylie Jenner, Kendall Jenner,
Caitlyn Jenner, Paris Hilton, Gigi Hadid, Bella Hadid, Hailey Bieber, Emily Ratajkowski, Cara Delevingne,
Naomi Campbell, Kate Moss, Cindy Crawford, Claudia Schiffer, Heidi Klum, Tyra Banks, Gisele Bundchen,
Adriana Lima, Alessandra Ambrosio, Irina Shayk, Chiara Ferragni, Charli D'Amelio, Addison Rae, MrBeast,
PewDiePie, Logan Paul, Jake Paul, Emma Chamberlain, Belle Delphine, Pokimane, Khaby Lame, Cristiano Ronaldo,
Georgina Rodriguez, Lionel Messi, Antonela Roccuzzo, Neymar, Kylian Mbappe, Erling Haaland, Lamine Yamal,
Jude Bellingham, Vinicius Junior, Mohamed Salah, Robert Lewandowski, Luka Modric, Karim Benzema,
Zinedine Zidane, Ronaldinho, David Beckham, Victoria Beckham, Harry Kane, Alexia Putellas, Aitana Bonmati,
Megan Rapinoe, Alex Morgan, Jose Mourinho, Pep Guardiola, Jurgen Klopp, Serena Williams, Venus Williams,
Naomi Osaka, Coco Gauff, Emma Raducanu, Maria Sharapova, Iga Swiatek, Roger Federer, Rafael Nadal,
Novak Djokovic, Carlos Alcaraz, Jannik Sinner, Boris Becker, Steffi Graf, LeBron James, Stephen Curry,
Kevin Durant, Michael Jordan, Shaquille O'Neal, Magic Johnson, Kobe Bryant, Caitlin Clark, Tom Brady,
Patrick Mahomes, Travis Kelce, Tiger Woods, Lewis Hamilton, Max Verstappen, Charles Leclerc, Fernando Alonso,
Michael Schumacher, Usain Bolt, Eliud Kipchoge, Simone Biles, Michael Phelps, Katie Ledecky,
Mikaela Shiffrin, Lindsey Vonn, Eileen Gu, Yuzuru Hanyu, Shohei Ohtani, Mike Tyson, Floyd Mayweather,
Manny Pacquiao, Tyson Fury, Anthony Joshua, Conor McGregor, Ronda Rousey, Khabib Nurmagomedov, Virat Kohli,
Sachin Tendulkar, MS Dhoni, Imane Khelif, Yao Ming, Valentina Shevchenko
"""

SAME = str.maketrans("løłđıаеорсухіјкмтнαοερικτ", "ioidiaeopcyxijkmthaoepikt")
"""What Unicode does not take apart, Cyrillic and Greek that look like Latin; and l is i, for 1 is either."""

WORDS = re.compile(r"[^\W_]+|[,;]")
"""Commas part what belongs to different things: "union jack, black boots"."""


def refuse_real_person(text: str, own: str = "") -> None:
    """Raise UnsafePrompt where the prompt names a real person of the list; else do nothing.

    Read are whole words, whatever their case, accents, look-alike letters and digits, and the dots,
    hyphens and spaces between them. "A Paris Hilton hotel lobby" is refused too, "a Hilton in Paris" is not.

    Args:
        text: the prompt.
        own: the character's name: whose rights are on record is drawn, also if listed.
    """
    read = plain(text).translate(SAME)
    for spelling in (read, read.translate(LOOKALIKES)):
        for written in _runs(joined(spelling)):
            name = _people().get(written)
            if name and written != _written(own):
                raise UnsafePrompt(
                    f"it names a real person ({name}): only characters with rights on record are drawn"
                )


def _runs(text: str) -> Iterator[str]:
    """Yield all neighbouring words written as one, up to as many as a name has."""
    words = WORDS.findall(text)
    for start in range(len(words)):
        run = ""
        for word in words[start : start + 6]:
            if word in (",", ";"):
                break
            run += word
            yield run


def _written(name: str) -> str:
    return "".join(WORDS.findall(plain(name).translate(SAME)))


@lru_cache(maxsize=1)
def _people() -> dict[str, str]:
    """Return each name by its letters alone."""
    return {_written(name): name for name in " ".join(NAMES.split()).split(", ")}
